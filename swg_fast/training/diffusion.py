"""The joint diffusion over actions and their weights (SWG, Algorithm 1)."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.nn import functional as F

from swg_fast.common.seeds import stream_seed
from swg_fast.data import Transitions
from swg_fast.kernels.training import actor as native
from swg_fast.kernels.training.c_steps import Moments
from swg_fast.method.networks import LAYER_NORM_EPS, ScoreNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.training.dropout import GivenDropout, keep_masks
from swg_fast.training.flat_parameters import FlatParameters, adam_state, take_step
from swg_fast.training.learning_rate import cosine
from swg_fast.training.onednn_linear import accelerate
from swg_fast.training.settings import TrainSettings

WARM_UP = 10  # the average follows about the last tenth of the steps until its rate is the setting


class DiffusionTrainer:
    """Denoising steps; the exponential moving average is what acts.

    `step` is the step in plain PyTorch. In fp32 on a CPU with a C compiler `steps` takes many steps in one
    call of `kernels.training.actor`; tests compare the two.
    """

    phase = "actor"
    rate_name = "actor_lr"
    loss_names = ("action_loss", "weight_loss")

    @classmethod
    def of(cls, settings: TrainSettings, state_dim: int, action_dim: int, device: torch.device
           ) -> DiffusionTrainer:
        """The trainer of a new network, as ``settings`` have it."""
        family = settings.family()
        network = ScoreNetwork(state_dim + (family.width if family else 0), action_dim, settings.hidden_dim,
                               settings.num_blocks, settings.weight_head, dropout=settings.dropout)
        schedule = NoiseSchedule.by_name(settings.schedule, settings.num_steps)
        return cls(network, schedule, settings, device)

    def __init__(self, network: ScoreNetwork, schedule: NoiseSchedule, settings: TrainSettings,
                 device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.schedule = schedule
        self.network = network.to(device)
        self.family = settings.family()  # to be `fitted` before the first step
        if device.type == "cpu":
            accelerate(self.network)
        for block in self.network.blocks:
            block.dropout = GivenDropout(settings.dropout)
        self.dropout_seed = stream_seed(settings.seed, self.phase, "dropout")
        self.shape = native.ActorShape(
            network.state_dim, network.action_dim, network.hidden_dim, network.num_blocks,
            network.time_embed_dim, network.weight_head == "early", LAYER_NORM_EPS, settings.weight_decay,
            settings.weight_loss, settings.dropout, self.dropout_seed)
        reads = settings.read_share > 0  # rows of a kind that the compiled steps do not have
        fitting = (device.type == "cpu" and settings.precision == "fp32" and not reads
                   and network.num_blocks <= native.MOST_BLOCKS)
        self.loops = native.loops() if fitting else None
        self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.flat = FlatParameters([self.network])
        self.ema_flat = FlatParameters([self.ema])
        self.learning_rate = torch.tensor(settings.actor_lr, device=device)
        self.ema_rate = torch.tensor(settings.ema_rate, dtype=torch.float32, device=device)
        self.optimizers = {
            "actor": torch.optim.AdamW(
                [self.flat.data], lr=self.learning_rate, weight_decay=settings.weight_decay,
                fused=True, capturable=device.type == "cuda")
        }
        bars = schedule.alphas_cumprod
        self.signal = bars.sqrt().float().to(device)
        self.noise = (1.0 - bars).sqrt().float().to(device)
        if reads:  # step T: the action as it is
            self.signal, self.noise = F.pad(self.signal, (0, 1), value=1.0), F.pad(self.noise, (0, 1))
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=settings.precision == "bf16")

    def pack(self, data: Transitions, weights: np.ndarray) -> torch.Tensor:
        """One row a transition, [a, w, s]; for a family ``weights`` are advantages, and `members` makes
        weights of them."""
        columns = [data.actions, weights[:, None], data.observations]
        return torch.from_numpy(np.concatenate(columns, axis=1)).to(self.device)

    def draw(self, generator: torch.Generator, steps: int, rows: int) -> dict[str, torch.Tensor]:
        """The random numbers of ``steps`` steps, without `masks`."""
        shape = (steps, self.settings.actor_batch)
        drawn = {
            "rows": torch.randint(rows, shape, generator=generator),
            "t": torch.randint(self.schedule.num_steps, shape, generator=generator),
            "noise": torch.randn(*shape, self.network.latent_dim, generator=generator),
        }
        if self.settings.read_share:
            reads = torch.rand(shape, generator=generator) < self.settings.read_share
            drawn["t"] = drawn["t"].masked_fill(reads, self.schedule.num_steps)
        if self.family is not None:
            drawn["member"] = torch.rand(*shape, 2, generator=generator)
        return drawn

    def members(self, batch: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Rows [M, ...] of a family, [a, u, s], as the network learns them: [a, w, s, c] with the code c of a
        member drawn by ``uniform`` [M, 2], and the weight w under it."""
        assert self.family is not None
        A = self.network.action_dim
        weights, codes = self.family.rows(batch[:, A], uniform)
        return torch.cat([batch[:, :A], weights[:, None], batch[:, A + 1:], codes], dim=1)

    def learning_rate_at(self, step: int) -> float:
        """Cosine decay, from step 0 to zero at the last."""
        share = cosine(step, self.settings.actor_steps) if self.settings.cosine_decay else 1.0
        return self.settings.actor_lr * share

    def ema_rate_at(self, step: int) -> float:
        """The average's rate, which falls from 1 at step 0: so the average begins with what was trained, and
        not with the random initial parameters, of which 0.999**1500, a fifth, would be left after 1,500
        steps. From step 10 / ema_rate on, 9,990 by default, it is the setting."""
        return max(self.settings.ema_rate, WARM_UP / (step + WARM_UP))

    def before_step(self, step: int) -> None:
        self.learning_rate.fill_(self.learning_rate_at(step))
        self.ema_rate.fill_(self.ema_rate_at(step))

    def masks(self, first: int, count: int) -> dict[str, torch.Tensor]:
        """Which entries dropout keeps in ``count`` steps from ``first`` on, [count, blocks, batch,
        hidden]."""
        if not self.settings.dropout:
            return {}
        network = self.network
        return {"keep": keep_masks(
            self.dropout_seed, first, count, network.num_blocks, self.settings.actor_batch,
            network.hidden_dim, self.settings.dropout, self.device)}

    def _losses(self, network: ScoreNetwork, batch: torch.Tensor,
                draws: dict[str, torch.Tensor]) -> torch.Tensor:
        D = network.latent_dim
        t, xi = draws["t"], draws["noise"]
        if self.family is not None:
            batch = self.members(batch, draws["member"])
        z_t = self.signal[t, None] * batch[:, :D] + self.noise[t, None] * xi
        reads = t == self.schedule.num_steps
        if self.settings.read_share:  # z_w is pure noise: 0 stands in, and the network learns -w
            z_t = torch.cat([z_t[:, :-1], z_t[:, -1:].masked_fill(reads[:, None], 0.0)], dim=1)
            xi = torch.cat([xi[:, :-1], torch.where(reads, -batch[:, D - 1], xi[:, -1])[:, None]], dim=1)
        with self.autocast:
            eps = network(z_t, batch[:, D:], t)
        error = (eps.float() - xi).square()
        if self.settings.read_share:  # of a clean action there is no noise to learn
            error = torch.cat([error[:, :-1].masked_fill(reads[:, None], 0.0), error[:, -1:]], dim=1)
        return torch.stack([error[:, :-1].sum(dim=1).mean(), error[:, -1].mean()])

    def step(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """One update from packed rows [batch, ...]; returns the losses of action and weight, [2]."""
        for block, keep in zip(self.network.blocks, draws.get("keep", ()), strict=False):
            block.dropout.keep = keep
        losses = self._losses(self.network, batch, draws)
        self.flat.zero_grad()
        (losses[0] + self.settings.weight_loss * losses[1]).backward()
        take_step(self.optimizers["actor"], self.flat, self.ema_flat, self.ema_rate)
        return losses.detach()

    def steps(self, data: torch.Tensor, rows: torch.Tensor, draws: dict[str, torch.Tensor],
              step: int) -> torch.Tensor:
        """Updates in C with each of ``rows`` [count, batch] of packed ``data``; the losses, [count, 2]."""
        assert self.loops is not None
        if self.family is not None:
            data = self.members(data[rows].flatten(0, 1), draws["member"].flatten(0, 1))
            rows = torch.arange(rows.numel()).view(rows.shape)
        state = adam_state(self.optimizers["actor"])
        rates, ema_rates = (torch.tensor([rate_at(step + i) for i in range(len(rows))])
                            for rate_at in (self.learning_rate_at, self.ema_rate_at))
        losses = self.loops.steps(
            self.shape, Moments(self.flat.data, state), self.ema_flat.data,
            torch.stack([self.signal, self.noise]), data,
            native.Batches(rows, draws["t"], draws["noise"], rates, ema_rates), step, int(state["step"]))
        state["step"] += len(rows)
        return losses

    @torch.no_grad()
    def evaluate(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """The losses of the averaged network on held-out rows, [2]."""
        return self._losses(self.ema, batch, draws)

    def flats(self) -> dict[str, FlatParameters]:
        return {"actor": self.flat, "ema": self.ema_flat}
