"""The ranker: networks that regress E[w | s, a] on the diffusion's training pairs, trained as one batch; one
cheap pass a candidate."""

from __future__ import annotations

import copy

import numpy as np
import torch

from swg_fast.data import Transitions
from swg_fast.method.networks import Ranker
from swg_fast.training.flat_parameters import FlatParameters, take_step
from swg_fast.training.learning_rate import cosine
from swg_fast.training.settings import TrainSettings

BATCH = 512
LEARNING_RATE = 1e-3  # falls to 0 along a cosine


class RankerTrainer:
    """Least squares on the weights [N] of the data. Where ``ranker_others`` is not 0, as many other actions
    are drawn beside a batch's own; their target is the lowest weight, so that actions off the data rank low.

    The weights are standardised in training; `ranker` gives the network in their own units.
    """

    phase = "ranker"
    loss_names = ("weight_loss", "others_loss")
    loops = None  # no compiled steps

    def __init__(self, state_dim: int, action_dim: int, weights: np.ndarray, settings: TrainSettings,
                 device: torch.device) -> None:
        self.settings, self.device, self.action_dim = settings, device, action_dim
        self.mean, self.spread = float(weights.mean()), float(weights.std()) or 1.0
        self.lowest = (float(weights.min()) - self.mean) / self.spread
        members = settings.rankers or 2
        self.network = Ranker(state_dim, action_dim, settings.ranker_hidden_dim, members).to(device)
        # A member learns the same beside any number of others, though the losses are means over all.
        self.gradient = torch.tensor(members / 2, device=device)
        self.flat = FlatParameters([self.network])
        self.learning_rate = torch.tensor(LEARNING_RATE, device=device)
        self.optimizers = {"ranker": torch.optim.Adam([self.flat.data], lr=self.learning_rate, fused=True,
                                                      capturable=device.type == "cuda")}

    def pack(self, data: Transitions, weights: np.ndarray) -> torch.Tensor:
        """One row a transition, [a, w, s] with w standardised."""
        standard = (weights[:, None] - self.mean) / self.spread
        columns = [data.actions, standard.astype(np.float32), data.observations]
        return torch.from_numpy(np.concatenate(columns, axis=1)).to(self.device)

    def draw(self, generator: torch.Generator, steps: int, rows: int) -> dict[str, torch.Tensor]:
        """The random numbers of ``steps`` steps: rows, and how far other actions lie."""
        shape = (steps, BATCH)
        return {"rows": torch.randint(rows, shape, generator=generator),
                "far": torch.rand(*shape, 1, generator=generator),
                "noise": torch.randn(*shape, self.action_dim, generator=generator)}

    def masks(self, first: int, count: int) -> dict[str, torch.Tensor]:
        """Draws that depend on a step's number alone: the ranker has none."""
        return {}

    def before_step(self, step: int) -> None:
        self.learning_rate.fill_(LEARNING_RATE * cosine(step, self.settings.ranker_steps))

    def _losses(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """The two losses, [2]: on the data's actions, and on the other actions."""
        A = self.action_dim
        actions, weights, states = batch[:, :A], batch[:, A], batch[:, A + 1:]
        own = (self.network(states, actions) - weights).square().mean()
        if not self.settings.ranker_others:
            return torch.stack([own, torch.zeros_like(own)])
        others = (actions + draws["far"] * draws["noise"]).clamp(-1, 1)
        return torch.stack([own, (self.network(states, others) - self.lowest).square().mean()])

    def step(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """One update from packed rows [batch, ...]; returns the two losses, [2]."""
        losses = self._losses(batch, draws)
        self.flat.zero_grad()
        (losses[0] + self.settings.ranker_others * losses[1]).backward(self.gradient)
        take_step(self.optimizers["ranker"], self.flat)
        return losses.detach()

    @torch.no_grad()
    def evaluate(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """The two losses on held-out rows, [2]."""
        return self._losses(batch, draws)

    def flats(self) -> dict[str, FlatParameters]:
        return {"ranker": self.flat}

    @torch.no_grad()
    def ranker(self) -> Ranker:
        """The network in the weights' own units."""
        network = copy.deepcopy(self.network).eval()
        network.weights[-1].mul_(self.spread)
        network.biases[-1].mul_(self.spread).add_(self.mean)
        return network
