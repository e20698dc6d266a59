"""The front door: a policy that samples candidates and keeps the best (SWG-R)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.checks import SAMPLING, check_sampling, whole
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device
from swg_fast.common.inputs import index_row, real_tensor, state_rows
from swg_fast.kernels.shared.sampler_table import SamplerTable
from swg_fast.method.networks import Ranker, ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.method.samplers import WEIGHT_CLIP, sampler_table
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.backends.job import Model, Samples, SamplingJob
from swg_fast.policy.backends.registry import make_backend, resolve
from swg_fast.policy.backends.streaming import Backend
from swg_fast.policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from swg_fast.policy.sampling import sampling_defaults, sampling_settings
from swg_fast.policy.search_plan import plan_ranking, plan_tree, reads_weights
from swg_fast.policy.soundness import check_job, check_model, check_samples

Array = np.ndarray | torch.Tensor


class Policy:
    """A trained score network, its schedule, and optionally a critic for ``select="max_q"`` and a
    ranker for ``ranking="ranker"``.

    The networks are read when a backend first samples; change them afterwards and the change is
    not seen. ``defaults`` are what `sample` and `predict` take where they are given nothing: any of
    `defaults.Sampling`'s names, which also has the values of those that are left out. A
    checkpoint's ``card`` brings its own under "sampling". ``value`` and ``card`` travel along to
    `save`.
    """

    def __init__(self, network: ScoreNetwork, schedule: NoiseSchedule, critic: TwinQ | None = None,
                 *, device: str | torch.device = "cpu", defaults: Mapping[str, Any] | None = None,
                 value: ValueNetwork | None = None, card: Mapping[str, Any] | None = None,
                 ranker: Ranker | None = None) -> None:
        self.device = resolve_device(device)
        self.card = dict(card or {})
        self.defaults = sampling_defaults(self.card.get("sampling") if defaults is None else defaults)
        self.family = WeightFamily.from_card(self.card)  # None: trained with one weight function
        if self.family is not None and self.defaults["guidance"] is None:
            self.defaults["guidance"] = self.family.default
        check_model(network, schedule, critic, ranker, self.family.width if self.family else 0)
        critic = critic.to(self.device) if critic is not None else None
        ranker = ranker.to(self.device) if ranker is not None else None
        self.model = Model(network.to(self.device).eval(), schedule, critic, ranker)
        self.value = value.to(self.device) if value is not None else None
        self._backends: dict[tuple[str, str], Backend] = {}
        self._tables: dict[Any, SamplerTable] = {}
        self._calls = 0
        self._seed = 0

    @property
    def state_dim(self) -> int:
        code = self.family.width if self.family is not None else 0
        return self.model.network.state_dim - code

    @property
    def action_dim(self) -> int:
        return self.model.network.action_dim

    @property
    def observation_space(self) -> Any:
        """States [S] as a `gymnasium.spaces.Box`."""
        return _box(-np.inf, np.inf, self.state_dim)

    @property
    def action_space(self) -> Any:
        """Actions [A] in [-1, 1] as a `gymnasium.spaces.Box`."""
        return _box(-1.0, 1.0, self.action_dim)

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint that `load_policy` gives back as this policy, its defaults and card
        included; returns ``folder``. `UsageError` where it cannot be written."""
        return save_checkpoint(folder, Checkpoint(
            self.model.network, self.model.schedule, self.model.critic, self.value,
            self.card | {"sampling": self.defaults}, self.model.ranker))

    def backend(self, name: str = "auto", dtype: str | None = None) -> Backend:
        """The backend ``name`` in compute type ``dtype`` (None: the policy's default), packed once
        and kept."""
        dtype = dtype or self.defaults["dtype"]
        key = (resolve(name, self.device, self.model.network, dtype), dtype)
        if key not in self._backends:
            self._backends[key] = make_backend(key[0], self.model, dtype, self.device)
        return self._backends[key]

    def sample(
        self, states: Array, n_candidates: int | None = None, guidance_scale: float | None = None,
        temperature: float | None = None, select: str | None = None, seed: int = 0,
        backend: str = "auto", chunk: int | None = None, *, dtype: str | None = None,
        sampler: str | None = None, sampler_steps: int | None = None, leaves: int | str | None = None,
        branch_after: int | None = None, keep_share: float | None = None,
        ranking: str | None = None, ranking_draws: int | None = None,
        ranking_step: int | None = None, ranking_mean: float | None = None,
        guidance: str | tuple[str, float] | None = None,
        weight_clip: tuple[float, float] = WEIGHT_CLIP, weight_readout: str = "exact",
        clip_denoised: bool = True, selection_temperature: float = 1.0,
        return_candidates: bool = False, state_indices: Array | None = None,
    ) -> Samples:
        """N candidates for every state [B, S] (or one state [S]); the best of each is kept.

        Where None is given for what ``policy.defaults`` has, that is taken; `settings` shows what would
        be used.
        guidance_scale: rho of Algorithm 2; 0 is unguided.
        temperature: scale of the noise; one candidate alone is drawn at 0 unless this is given (the
        paper's plain SWG).
        select: ``max_weight`` (highest predicted weight of the last step before its clip),
        ``expected_weight`` (highest estimate of E[w | a, s], see ``ranking``),
        ``max_q`` (highest min(Q1, Q2); needs a critic), ``softmax`` (with probability proportional
        to weight ** (1 / selection_temperature)), ``none`` (the lowest index). Ties go to the lowest
        index.
        ranking: where expected weights come from: ``draws`` (the clean weight predicted of the action
        noised again to ``ranking_step``, averaged over ``ranking_draws`` forward passes) ``ranker``
        (one pass of the policy's small network that was trained to regress them) or ``read`` (one pass of
        the score network, where it was trained with a ``read_share``).
        keep_share: below 1, only this share of a state's candidates, the best by expected weight, is
        selected from; they stay in memory, D + 3 numbers each.
        seed: 64 bits. A candidate's noise depends on (seed, candidate index, state index) alone;
        ``state_indices`` [B] replaces the state indices 0..B-1.
        sampler: ``ddpm`` (Algorithm 2), ``ddpm_x0`` (clips the predicted clean sample), or a solver that
        can walk ``sampler_steps`` of the trained steps, evenly spaced, instead of all: ``ddim``,
        ``dpmpp_2m``, ``dpmpp_2m_sde``.
        leaves: above 1, so many candidates share the first ``branch_after`` steps of their root and go
        on from there with noise of their own; a root's first leaf is the candidate of that index
        without a tree. ``auto`` picks 16 or none by N (`defaults.auto_leaves`).
        guidance: for a policy trained with a family of weight functions, which of them guides, such as
        ``expectile:0.9``: any parameter within the range that it was trained for.
        chunk: candidates in memory at once; it changes no result beyond rounding.
        dtype: the backend's compute type, such as ``fp32`` or ``bf16``; ``auto`` is the fastest that
        this machine has.

        Raises `UsageError` for arguments of another shape, type or range, for states with NaN, unknown
        names, ``max_q`` without a critic, more memory than there is, and actions that would not be
        finite, naming the first step at which they are not.
        """
        given = check_sampling({
            "n_candidates": n_candidates, "guidance_scale": guidance_scale, "temperature": temperature,
            "select": select, "seed": seed, "backend": backend, "chunk": chunk, "dtype": dtype,
            "sampler": sampler, "sampler_steps": sampler_steps, "leaves": leaves,
            "branch_after": branch_after, "keep_share": keep_share, "ranking": ranking,
            "ranking_draws": ranking_draws, "ranking_step": ranking_step, "ranking_mean": ranking_mean,
            "guidance": guidance, "weight_clip": weight_clip, "weight_readout": weight_readout,
            "clip_denoised": clip_denoised,
            "selection_temperature": selection_temperature, "return_candidates": return_candidates})
        job = self._job(given, state_rows(states, self.state_dim, self.device), state_indices)
        if job.settings["temperature"] == 0 and job.n_candidates > 1:
            warnings.warn(f"temperature 0 makes all {job.n_candidates} candidates the same; use a "
                          "temperature above 0 to resample", stacklevel=2)
        used = self.backend(backend, given["dtype"])
        return check_samples(used.run(job), job, self.model, f"{used.name} {used.dtype}")

    def _job(self, given: dict[str, Any], states: torch.Tensor, indices: Array | None) -> SamplingJob:
        """What a backend is asked for: checked arguments of `sample` and states [B, S] on the device."""
        chosen = sampling_settings(self.defaults, {name: given.get(name) for name in self.defaults})
        select = chosen["select"]
        if select == "max_q" and self.model.critic is None:
            raise UsageError("select='max_q' needs a critic and this policy has none; "
                             "use select='max_weight'")
        code = self._code(chosen["guidance"])
        settings = {name: chosen.get(name, given.get(name)) for name in (
            "guidance_scale", "temperature", "weight_clip", "weight_readout", "clip_denoised")}
        table = self._table(chosen["sampler"], chosen["sampler_steps"], tuple(settings.items()))
        tree = plan_tree(table, chosen["n_candidates"], chosen["leaves"], chosen["branch_after"])
        ranks, ranking = select == "expected_weight" or chosen["keep_share"] < 1, None
        expects = chosen["ranking"] if ranks else None
        if expects == "ranker" and self.model.ranker is None:
            raise UsageError("ranking='ranker' needs a ranker and this policy has none; use ranking='draws', "
                             "or train one with --ranker-steps")
        if expects == "read" and not reads_weights(self.card):
            raise UsageError("ranking='read' needs a network trained with --read-share, and this policy's "
                             "card does not say so; use ranking='draws'")
        if expects == "draws":
            mean = chosen["ranking_mean"]
            if mean is None and self.family is not None:
                mean = self.family.mean_weight(chosen["guidance"])
            ranking = plan_ranking(self.model.schedule, self.card, chosen["ranking_draws"],
                                   chosen["ranking_step"], mean)
        if code is not None:
            states = torch.cat([states, code.expand(len(states), -1)], dim=1)
        job = SamplingJob(
            states=states, state_indices=index_row(indices, len(states), self.device),
            n_candidates=chosen["n_candidates"], table=table, sampler=chosen["sampler"],
            settings=settings | {"latent_dim": self.action_dim + 1}, seed=given["seed"], select=select,
            chunk=given["chunk"], selection_temperature=given["selection_temperature"],
            return_candidates=given["return_candidates"], tree=tree, ranking=ranking,
            keep_share=chosen["keep_share"], expects=expects)
        check_job(job, self.model.network)
        return job

    def _table(self, sampler: str, steps: int | None, settings: tuple[tuple[str, Any], ...]) -> SamplerTable:
        """The sampler's table, kept: making one takes longer than a GPU takes for a few candidates."""
        key = (sampler, steps, settings)
        if key not in self._tables:
            if len(self._tables) >= 64:
                self._tables.clear()
            self._tables[key] = sampler_table(sampler, self.model.schedule, steps, **dict(settings))
        return self._tables[key]

    def _code(self, guidance: str | None) -> torch.Tensor | None:
        """What stands beside a state for ``guidance``, [K + 1]; None for a policy without a family."""
        if self.family is not None and guidance is not None:
            return self.family.code(guidance).to(self.device)
        if guidance is not None:
            raise UsageError(f"guidance={guidance!r}: this policy was trained with one weight function; "
                             "leave guidance out, or train with --weight-function family")
        return None

    def check(self, **arguments: Any) -> None:
        """`UsageError` for ``arguments`` that `sample` would refuse, whatever the states. Nothing is
        drawn: to be called before long work."""
        signature = inspect.signature(self.sample).parameters
        plain = {name: signature[name].default for name in SAMPLING}
        given = check_sampling(plain | arguments)
        self._job(given, torch.zeros(1, self.state_dim, device=self.device), None)
        self.backend(given["backend"], given["dtype"])

    def settings(self, **chosen: Any) -> dict[str, Any]:
        """What `sample` uses where it is given ``chosen``: that, and the rest of `defaults.Sampling`.

        `UsageError` for a name, type or range that `sample` does not have.
        """
        return sampling_settings(self.defaults, check_sampling(chosen))

    def predict(self, observation: Array, state: Any = None, episode_start: Any = None,
                deterministic: bool = False, *, seed: int | None = None, **settings: Any
                ) -> tuple[np.ndarray, Any]:
        """(actions, state) as stable-baselines3 has it: [S] -> [A], [B, S] -> [B, A], numpy.

        ``deterministic`` is the paper's plain SWG, one candidate at temperature 0. Otherwise each
        call draws new noise, a function of the policy's seed (`reseed`) and the number of calls;
        ``seed`` fixes it. Other keywords go to `sample`.
        """
        observation = real_tensor("states", observation)
        one = observation.ndim == 1
        if seed is None:
            seed = self._seed + (self._calls << 32)
            self._calls += 1
        if deterministic:
            settings |= {"n_candidates": 1, "temperature": 0.0}
        actions = self.sample(observation, seed=seed, **settings).actions.cpu().numpy()
        return (actions[0] if one else actions), state

    def reseed(self, seed: int) -> None:
        """Starts `predict`'s noise anew; ``seed`` in 0..2**32-1."""
        self._seed, self._calls = whole("seed", seed, 0, 2**32 - 1), 0


def _box(low: float, high: float, size: int) -> Any:
    from gymnasium.spaces import Box

    return Box(low, high, (size,), np.float32)


def load_policy(name_or_path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """A policy from a checkpoint's folder, or a bundled one by name (``antmaze-umaze-v2``)."""
    checkpoint = load_checkpoint(name_or_path)
    return Policy(checkpoint.network, checkpoint.schedule, checkpoint.critic, device=device,
                  value=checkpoint.value, card=checkpoint.card, ranker=checkpoint.ranker)
