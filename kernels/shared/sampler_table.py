"""A sampler as data: one row of coefficients a step, which every backend reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional as F

from swg_fast.kernels.shared.devices import settle

COLUMNS = ("sigma", "readout", "guidance", "clean_scale", "state", "epsilon", "clean", "noise", "previous")


@dataclass(frozen=True)
class SamplerTable:
    """What a sampler does at each of its n steps, and where it clips.

    With eps the network's output, g the gradient of the log of the clipped weight, xi the noise:

        w0  = readout (z_w - sigma eps_w)
        g   = grad_z log clip(w0, weight_clip)            (zero outside the clip)
        e   = eps - guidance g
        x0  = clean_scale (z - sigma e)                   (clipped if clip_clean)
        z  <- state z + epsilon e + clean x0 + previous x0' + noise xi     (clipped if clip_state)

    x0' is x0 of the row walked before. Clipping moves actions to [-1, 1] and the weight to
    ``weight_clip``; a step's weight, which ranks after the last one, is the last entry of its new z
    with neither clip.

    ``coefficients`` is [n, 9] float64 in the order of `COLUMNS`. Rows are walked from the last to the
    first; row j belongs to step ``steps[j]`` of the T that the network was trained on, whose time
    embedding it is given and whose number is the noise's step word (T is the initial draw).
    ``initial`` scales the first draw. With ``guided`` false every guidance coefficient is 0 and no
    gradient is needed; nor does a single row need one whose guidance is 0.
    """

    coefficients: torch.Tensor
    steps: tuple[int, ...]
    trained_steps: int
    initial: float
    weight_clip: tuple[float, float]
    clip_state: bool
    clip_clean: bool
    guided: bool

    @property
    def num_steps(self) -> int:
        """n, the rows."""
        return self.coefficients.shape[0]

    @cached_property
    def multistep(self) -> bool:
        """Whether a row reads the previous x0, which is then state of a candidate."""
        return any(row["previous"] != 0 for row in self._rows)

    @cached_property
    def noisy(self) -> tuple[int, ...]:
        """The rows that add noise, in the order of the walk."""
        return tuple(j for j in reversed(range(self.num_steps)) if self._rows[j]["noise"] != 0)

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[torch.Tensor, torch.Tensor]]:
        return {}

    def guides(self, j: int) -> bool:
        """Whether row j is guided; else it needs no gradient."""
        return self.guided and self._rows[j]["guidance"] != 0

    @cached_property
    def partly_guided(self) -> bool:
        """Whether some rows are guided and others are not."""
        return len({self.guides(j) for j in range(self.num_steps)}) == 2

    def on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The coefficients [n, 9] in float32 and the steps [n] int32 on ``device``, brought there once: a
        copy to a GPU takes as long as a small decision's arithmetic."""
        if device not in self._placed:
            placed = (self.coefficients.float().to(device),
                      torch.tensor(self.steps, dtype=torch.int32, device=device))
            settle(device)  # any stream may read it from the next line on
            self._placed[device] = placed
        return self._placed[device]

    @cached_property
    def _rows(self) -> tuple[dict[str, float], ...]:
        return tuple(dict(zip(COLUMNS, row, strict=True)) for row in self.coefficients.tolist())

    def row(self, j: int) -> dict[str, float]:
        """The coefficients of row j by name."""
        return self._rows[j]


@dataclass(frozen=True)
class Tree:
    """Candidates that share their first steps: ``leaves`` of each root go on, with noise of their own,
    from where it stands after ``shared`` rows. Candidate c's root has the noise of its first leaf."""

    leaves: int
    shared: int


@dataclass(frozen=True)
class Ranking:
    """An estimate of E[w | a, s]: the clean weight that the network predicts of the finished action,
    noised again to a trained ``step`` with its weight's entry at the weights' ``mean``, averaged over
    ``draws`` whose noise's step words are T + 2, T + 3, ...; ``sigma`` is the step's."""

    step: int
    draws: int
    mean: float
    sigma: float
    trained_steps: int

    @property
    def signal(self) -> float:
        """What is left of the clean sample at the step."""
        return (1 - self.sigma**2) ** 0.5

    @property
    def words(self) -> range:
        """The draws' step words."""
        return range(self.trained_steps + 2, self.trained_steps + 2 + self.draws)

    def row(self) -> torch.Tensor:
        """As a row of coefficients [9] whose new z is the predicted clean sample."""
        scale = 1 / self.signal
        columns = {"sigma": self.sigma, "readout": scale, "clean_scale": scale, "clean": 1.0}
        return torch.tensor([columns.get(name, 0.0) for name in COLUMNS], dtype=torch.float64, device="cpu")


class Latent(NamedTuple):
    """Where M candidates stand between two rows: z [M, D]; the last row's x0 [M, D], None where the
    table is not multistep; and the last row's weight before any clip [M]."""

    z: torch.Tensor
    clean: torch.Tensor | None
    weight: torch.Tensor

    def take(self, rows: slice | torch.Tensor) -> Latent:
        """Some of the rows, by slice or by index."""
        return Latent(*(None if part is None else part[rows] for part in self))

    def padded(self, multiple: int) -> Latent:
        """With rows of zeros up to a multiple."""
        def pad(part: torch.Tensor | None) -> torch.Tensor | None:
            missing = 0 if part is None else -len(part) % multiple
            return F.pad(part, (0, 0) * (part.ndim - 1) + (0, missing)) if missing else part

        return Latent(*map(pad, self))


class Words(NamedTuple):
    """Of M candidates: whose each is, as a row of the hoisted states, and the noise's candidate and
    state words; all [M] int64."""

    owners: torch.Tensor
    candidates: torch.Tensor
    states: torch.Tensor

    def padded(self, multiple: int) -> Words:
        """With rows of zeros up to a multiple."""
        return Words(*(F.pad(part, (0, -len(part) % multiple)) for part in self))

    def part(self, rows: slice) -> Words:
        """Some of the rows."""
        return Words(*(part[rows] for part in self))
