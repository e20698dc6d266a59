"""A distilled student's calls (Luhman and Luhman 2021): each adds the network's output to the latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from swg_fast.reference.sampler import Trajectory, clip


@torch.no_grad()
def student(network: Any, states: torch.Tensor, z: torch.Tensor, steps: Sequence[int],
            weight_clip: tuple[float, float] | None) -> Trajectory:
    """Draws [action, weight] for each row of states [M, S] from the scaled initial noise z [M, D].

    ``steps`` are the trained steps that the calls are given, in the order of the calls. The last result is
    clipped, its weight to ``weight_clip``; None leaves it as it is. A student has no guidance: the gradients
    are zero.
    """
    path, outputs = [z], []
    for t in steps:
        outputs.append(network(z, states, torch.full((len(z),), t, dtype=torch.int64, device=z.device)))
        z = z + outputs[-1]
        path.append(z)
    weight = z[:, -1].clone()
    if weight_clip is not None:
        path[-1] = clip(z, weight_clip)
    eps = torch.stack(outputs)
    return Trajectory(torch.stack(path), eps, torch.zeros_like(eps), path[-1], weight)
