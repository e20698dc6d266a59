"""A distilled student: a network that goes from noise to the end of its teacher's guided walk in a few calls.

A deterministic guided walk is a function of (state, initial noise, guidance scale). A student learns it by
regression on the walk's end (Luhman and Luhman 2021; Meng et al. 2022 for the guidance scale as an input).
Each of its calls adds the network's output to the latent: z <- z + f(z, s, t), with t the trained step at
which that part of the walk begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from swg_fast.common.checks import MAX_SCALE
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import validated
from swg_fast.kernels.shared.sampler_table import COLUMNS, SamplerTable
from swg_fast.method.sampler_names import READOUTS, SAMPLERS

ENTRY = "distilled"  # of a model card


@dataclass(frozen=True)
class StudentWalk:
    """What a student has learnt: which walk of its teacher, and in which calls it makes it.

    teacher: SHA-256 of the teacher's weights file; empty where there was none. sampler, sampler_steps,
    weight_clip, weight_readout, clip_denoised: the teacher's walk, as `SamplingConfig` has them.
    guidance_scale: (low, high), equal for a single scale. steps: the trained step that each call is given,
    rising; the highest is called first. of_best: the student has learnt what the teacher keeps of as many
    candidates, not where a walk ends; None otherwise.
    """

    teacher: str
    sampler: str
    sampler_steps: int
    guidance_scale: tuple[float, float]
    steps: tuple[int, ...]
    weight_clip: tuple[float, float]
    weight_readout: str
    clip_denoised: bool
    of_best: int | None = None

    @property
    def width(self) -> int:
        """Entries that stand beside the state for the guidance scale: one for a range, else none."""
        low, high = self.guidance_scale
        return int(high > low)

    @property
    def default_scale(self) -> float:
        """The guidance scale where none is named: the middle of the range."""
        low, high = self.guidance_scale
        return low + (high - low) / 2

    def scale_code(self, scales: torch.Tensor) -> torch.Tensor:
        """Guidance scales [M] as what stands beside the state, [M, width] in [-1, 1]."""
        low, high = self.guidance_scale
        if not self.width:
            return scales.new_empty(len(scales), 0)
        return (2 * (scales - low) / (high - low) - 1)[:, None]

    def code(self, scale: float) -> torch.Tensor:
        """What stands beside a state for this guidance scale, [width]. `UsageError` for a scale that the
        student has not learnt."""
        low, high = self.guidance_scale
        if not low <= scale <= high:
            learnt = f"guidance_scale={low:g}" if low == high else f"guidance_scale={low:g} to {high:g}"
            raise UsageError(f"guidance_scale={scale:g}: the student has learnt {learnt}; use that, or "
                             "distil another")
        return self.scale_code(torch.tensor([scale], dtype=torch.float32, device="cpu"))[0]

    def table(self, trained_steps: int, temperature: float) -> SamplerTable:
        """The student's calls as a sampler: every backend draws from it as it does from a walk.

        The last row's clean sample is z + f, clipped as the teacher's last step clips; the rows before it
        move z by f alone.
        """
        rows = []
        for j in range(len(self.steps)):
            columns = {"sigma": -1.0, "readout": 1.0, "clean_scale": 1.0}
            columns |= {"clean": 1.0} if j == 0 else {"state": 1.0, "epsilon": 1.0}
            rows.append([columns.get(name, 0.0) for name in COLUMNS])
        return SamplerTable(
            torch.tensor(rows, dtype=torch.float64, device="cpu"), self.steps, trained_steps, temperature,
            self.weight_clip, clip_state=False, clip_clean=self.clip_denoised, guided=False)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> StudentWalk | None:
        """The walk that a card records; None for a policy without a student. `UsageError` for a record that
        makes no sense."""
        entry = card.get(ENTRY)
        if entry is None:
            return None
        again = "copy the checkpoint again, or distil it anew"
        name = f"{ENTRY} of the card"
        if not isinstance(entry, Mapping) or "walk" not in entry:
            raise UsageError(f"{name} has no walk; {again}")
        walk = validated(entry["walk"], cls, name, again)
        walk._check(name, again)
        return walk

    def _check(self, name: str, again: str) -> None:
        low, high = self.guidance_scale
        lowest, highest = self.weight_clip
        sound = {
            "sampler": self.sampler in SAMPLERS and not SAMPLERS[self.sampler].stochastic,
            "sampler_steps": self.sampler_steps >= 1,
            "guidance_scale": -MAX_SCALE <= low <= high <= MAX_SCALE,
            "steps": len(self.steps) > 0 and self.steps[0] >= 0
            and all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False)),
            "weight_clip": 0 < lowest < highest <= MAX_SCALE,
            "weight_readout": self.weight_readout in READOUTS,
            "of_best": self.of_best is None or self.of_best >= 2,
        }
        for field, holds in sound.items():
            if not holds:
                raise UsageError(f"{name}: {field} is {getattr(self, field)!r}; {again}")
