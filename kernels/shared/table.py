"""A sampler as data: one row of coefficients a step, which every backend reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

COLUMNS = ("sigma", "readout", "guidance", "clean_scale", "state", "epsilon", "clean", "noise")


@dataclass(frozen=True)
class SamplerTable:
    """What a sampler does at each step t, and where it clips.

    With eps the network's output, g the gradient of the log of the clipped weight, xi the noise:

        w0  = readout (z_w - sigma eps_w)
        g   = grad_z log clip(w0, weight_clip)            (zero outside the clip)
        e   = eps - guidance g
        x0  = clean_scale (z - sigma e)                   (clipped if clip_clean)
        z  <- state z + epsilon e + clean x0 + noise xi   (clipped if clip_state)

    Clipping moves actions to [-1, 1] and the weight to ``weight_clip``. ``coefficients`` is [T, 8]
    float64 in the order of `COLUMNS`, row t for step t; ``initial`` scales the first draw. With
    ``guided`` false every guidance coefficient is 0 and no gradient is needed.
    """

    coefficients: torch.Tensor
    initial: float
    weight_clip: tuple[float, float]
    clip_state: bool
    clip_clean: bool
    guided: bool

    @property
    def num_steps(self) -> int:
        return self.coefficients.shape[0]

    def row(self, t: int) -> dict[str, float]:
        """The coefficients of step t by name."""
        return dict(zip(COLUMNS, self.coefficients[t].tolist(), strict=True))
