"""What a policy keeps of many candidates, as something to learn: the decision of a thousand in one call.

A kept action has no noise of its own that a student could be given: the noise of the best of a thousand is
not normal. So some kept actions of the same state are paired with as much fresh noise, each with what lies in
its direction: the pairing of the least squared distance, as flow matching does within a batch (Pooladian et
al. 2023; Tong et al. 2023). Noise then chooses among the good actions of a state, where there are several.
A mean of the best has nothing to choose among: there every pair has a state of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.seeds import stream_seed
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.training.distillation.settings import DistillSettings

SHARED = 8  # pairs in a row that begin from the same state, where each has one candidate
PART = 64  # states whose candidates are drawn at once


def check_best(teacher: SamplingConfig, settings: DistillSettings) -> None:
    """`UsageError` for settings that do not go with ``of_best``, and for a teacher that ranks nothing."""
    best = f"of_best={settings.of_best}"
    if settings.calls > 1:
        raise UsageError(f"calls={settings.calls} with {best}: what is kept has no steps to divide; use "
                         "calls=1")
    if settings.guidance_range is not None:
        raise UsageError(f"guidance_range with {best}: candidates are drawn at one guidance scale; use "
                         "guidance_scale")
    if teacher.select == "none":
        raise UsageError(f"{best}: this policy keeps the first candidate (select='none'), so none is the "
                         "best; save it with another ranking")


def best_of(teacher: Policy, states: torch.Tensor, number: int, seed: int, **settings: Any) -> torch.Tensor:
    """What ``teacher`` keeps in ``states`` [b, S], the first of this number: action and weight, [b, D]."""
    found = []
    for first in range(0, len(states), PART):
        part = states[first:first + PART]
        indices = torch.arange(number + first, number + first + len(part))
        kept = teacher.sample(part, seed=stream_seed(seed, "best"), state_indices=indices,
                              **{name: value for name, value in settings.items() if value is not None})
        found.append(torch.cat([kept.actions, kept.weights[:, None]], dim=1).cpu())
    return torch.cat(found)


def shared(teacher: SamplingConfig, settings: DistillSettings) -> int:
    """How many pairs in a row begin from the same state."""
    if settings.of_best is None:
        return 1
    given: dict[str, Any] = {"n_candidates": settings.of_best} | settings.of_candidates()
    return 1 if replace(teacher, **given).averaged > 1 else SHARED


def paired(kept: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``kept`` [b, D] in an order that fits ``noise`` [b, D]: within each `SHARED` rows the one of the least
    sum of squared distances between actions and noise."""
    from scipy.optimize import linear_sum_assignment

    ordered = []
    for some, z in zip(kept.split(SHARED), noise.split(SHARED), strict=True):
        _, columns = linear_sum_assignment((z[:, :-1] @ some[:, :-1].T).numpy(), maximize=True)
        ordered.append(some[torch.from_numpy(columns)])
    return torch.cat(ordered)
