"""The front door: a policy that samples candidates and keeps the best (SWG-R)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.backends import make_backend, resolve
from swg_fast.backends.base import SELECTIONS, Backend, Model, Samples, SamplingJob
from swg_fast.checkpoint import load_checkpoint
from swg_fast.errors import UsageError
from swg_fast.networks import ScoreNetwork, TwinQ
from swg_fast.samplers import WEIGHT_CLIP, sampler_table
from swg_fast.schedule import NoiseSchedule

Array = np.ndarray | torch.Tensor


class Policy:
    """A trained score network, its schedule, and optionally a critic for ``select="max_q"``.

    The networks are read when a backend first samples; change them afterwards and the change is
    not seen. ``defaults`` may hold guidance_scale, temperature, n_candidates and any other keyword
    of `sample`; a checkpoint's card brings its own.
    """

    def __init__(self, network: ScoreNetwork, schedule: NoiseSchedule, critic: TwinQ | None = None,
                 *, device: str | torch.device = "cpu",
                 defaults: dict[str, Any] | None = None) -> None:
        self.device = torch.device(device)
        critic = critic.to(self.device) if critic is not None else None
        self.model = Model(network.to(self.device).eval(), schedule, critic)
        self.defaults = dict(defaults or {})
        self._backends: dict[tuple[str, str | None], Backend] = {}
        self._calls = 0
        self._seed = 0

    @property
    def state_dim(self) -> int:
        return self.model.network.state_dim

    @property
    def action_dim(self) -> int:
        return self.model.network.action_dim

    def backend(self, name: str = "auto", dtype: str | None = None) -> Backend:
        """The backend ``name`` in compute type ``dtype``, packed once and kept."""
        key = (resolve(name, self.device, self.model.network), dtype)
        if key not in self._backends:
            self._backends[key] = make_backend(key[0], self.model, dtype, self.device)
        return self._backends[key]

    def sample(
        self, states: Array, n_candidates: int = 1, guidance_scale: float | None = None,
        temperature: float | None = None, select: str = "max_weight", seed: int = 0,
        backend: str = "auto", chunk: int | None = None, *, dtype: str | None = None,
        sampler: str = "ddpm", weight_clip: tuple[float, float] = WEIGHT_CLIP,
        weight_readout: str = "exact", clip_denoised: bool = True,
        selection_temperature: float = 1.0, return_candidates: bool = False,
        state_indices: Array | None = None,
    ) -> Samples:
        """N candidates for every state [B, S] (or one state [S]); the best of each is kept.

        guidance_scale: rho of Algorithm 2; None takes the checkpoint's, else 1.
        temperature: scale of the noise; None is 0 for one candidate (the paper's plain SWG), else
        the checkpoint's, else 1.
        select: ``max_weight`` (highest predicted weight of the last step before its clip),
        ``max_q`` (highest min(Q1, Q2); needs a critic), ``softmax`` (with probability proportional
        to weight ** (1 / selection_temperature)), ``none`` (candidate 0). Ties go to the lowest
        index.
        seed: 64 bits. A candidate's noise depends on (seed, candidate index, state index) alone;
        ``state_indices`` [B] replaces the state indices 0..B-1.
        chunk: candidates in memory at once; it changes no result beyond rounding.
        dtype: the backend's compute type, such as ``fp32`` or ``bf16``; ``auto`` is the fastest that
        this machine has; None is the backend's default (``fp32`` on a CPU, ``bf16`` in the fused
        kernel where the GPU has it).

        Raises `UsageError` for states of another shape or with NaN, n_candidates < 1, unknown
        names, and ``max_q`` without a critic.
        """
        if n_candidates < 1:
            raise UsageError(f"n_candidates must be at least 1, got {n_candidates}")
        if chunk is not None and chunk < 1:
            raise UsageError(f"chunk must be at least 1, got {chunk}")
        if select not in SELECTIONS:
            raise UsageError(f"unknown selection {select!r}; use one of {', '.join(SELECTIONS)}")
        if select == "max_q" and self.model.critic is None:
            raise UsageError("select='max_q' needs a critic and this policy has none; "
                             "use select='max_weight'")
        if selection_temperature <= 0:
            raise UsageError(f"selection_temperature must be above 0, got {selection_temperature}")
        if not 0 <= seed < 2**64:
            raise UsageError(f"seed must be in 0..2**64-1, got {seed}")
        rho, temperature = self._scales(n_candidates, guidance_scale, temperature)
        settings: dict[str, Any] = {
            "guidance_scale": rho, "temperature": temperature, "weight_clip": tuple(weight_clip),
            "weight_readout": weight_readout, "clip_denoised": clip_denoised,
        }
        table = sampler_table(sampler, self.model.schedule, **settings)
        states = self._states(states)
        indices = (torch.arange(len(states)) if state_indices is None
                   else torch.as_tensor(state_indices)).to(self.device, torch.int64)
        if indices.shape != (len(states),):
            raise UsageError(f"state_indices has shape {list(indices.shape)}, expected "
                             f"[{len(states)}]: one index a state")
        job = SamplingJob(
            states=states, state_indices=indices, n_candidates=n_candidates, table=table,
            sampler=sampler, settings=settings | {"latent_dim": self.action_dim + 1}, seed=seed,
            select=select, selection_temperature=selection_temperature, chunk=chunk,
            return_candidates=return_candidates)
        return self.backend(backend, dtype).run(job)

    def predict(self, observation: Array, state: Any = None, episode_start: Any = None,
                deterministic: bool = False, *, seed: int | None = None, **settings: Any
                ) -> tuple[np.ndarray, Any]:
        """(actions, state) as stable-baselines3 has it: [S] -> [A], [B, S] -> [B, A], numpy.

        ``deterministic`` is the paper's plain SWG, one candidate at temperature 0. Otherwise each
        call draws new noise, a function of the policy's seed (`reseed`) and the number of calls;
        ``seed`` fixes it. Other keywords, and the checkpoint's defaults, go to `sample`.
        """
        one = np.ndim(observation) == 1
        if seed is None:
            seed = self._seed + (self._calls << 32)
            self._calls += 1
        chosen = {**self.defaults, **settings}
        if deterministic:
            chosen |= {"n_candidates": 1, "temperature": 0.0}
        actions = self.sample(observation, seed=seed, **chosen).actions.cpu().numpy()
        return (actions[0] if one else actions), state

    def reseed(self, seed: int) -> None:
        """Starts `predict`'s noise anew; ``seed`` in 0..2**32-1."""
        if not 0 <= seed < 2**32:
            raise UsageError(f"seed must be in 0..2**32-1, got {seed}")
        self._seed, self._calls = seed, 0

    def _scales(self, n: int, rho: float | None, temperature: float | None) -> tuple[float, float]:
        rho = self.defaults.get("guidance_scale", 1.0) if rho is None else rho
        if temperature is None:
            temperature = 0.0 if n == 1 else self.defaults.get("temperature", 1.0)
        if not (np.isfinite(rho) and np.isfinite(temperature) and temperature >= 0):
            raise UsageError("guidance_scale must be finite and temperature finite and >= 0; got "
                             f"{rho} and {temperature}")
        if temperature == 0 and n > 1:
            warnings.warn(f"temperature 0 makes all {n} candidates the same; use a temperature "
                          "above 0 to resample", stacklevel=3)
        return float(rho), float(temperature)

    def _states(self, states: Array) -> torch.Tensor:
        tensor = torch.as_tensor(np.asarray(states) if not torch.is_tensor(states) else states)
        tensor = tensor.detach().to(self.device, torch.float32)
        tensor = tensor[None] if tensor.ndim == 1 else tensor
        if tensor.ndim != 2 or tensor.shape[1] != self.state_dim or len(tensor) < 1:
            raise UsageError(f"states have shape {list(tensor.shape)}, this policy takes "
                             f"[B, {self.state_dim}] or [{self.state_dim}]")
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError("states have NaN or infinity; check the environment's observations")
        return tensor


def load_policy(name_or_path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """A policy from a checkpoint's folder, or a bundled one by name (``antmaze-umaze-v2``)."""
    checkpoint = load_checkpoint(name_or_path)
    return Policy(checkpoint.network, checkpoint.schedule, checkpoint.critic, device=device,
                  defaults=checkpoint.card.get("sampling"))
