"""How a search is carried out: the tree its candidates share, and how they are ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import Ranking, SamplerTable, Tree
from swg_fast.method.schedule import NoiseSchedule


def plan_tree(table: SamplerTable, n_candidates: int, leaves: int, branch_after: int | None
              ) -> Tree | None:
    """The tree of ``leaves`` a root that branches after ``branch_after`` of the table's steps (None: four
    fifths of them); None for single leaves.

    Raises `UsageError` where N is not whole roots or the leaves of a root would all be one: no noise
    is added after the branch.
    """
    if leaves == 1:
        if branch_after is not None:
            raise UsageError(f"branch_after={branch_after} needs leaves of 2 or more to branch into")
        return None
    if n_candidates % leaves:
        raise UsageError(f"{n_candidates} candidates are no whole number of roots with {leaves} leaves each; "
                         f"use {-(-n_candidates // leaves) * leaves}, or other leaves")
    n = table.num_steps
    noisy = [j for j in range(n) if table.row(j)["noise"] != 0]
    if not noisy:
        reason = "temperature 0" if table.initial == 0 else "a sampler without noise of its own"
        raise UsageError(f"leaves={leaves} with {reason}: all leaves of a root would be one; use "
                         "leaves=1, or a temperature above 0 with ddpm, ddpm_x0 or dpmpp_2m_sde")
    if n < 3:
        raise UsageError(f"leaves={leaves} need 3 steps or more: one to share, one whose noise parts the "
                         f"leaves, and the last, which has none; the sampler walks {n}")
    shared = min(4 * n // 5, n - 2) if branch_after is None else branch_after
    if not 1 <= shared <= n - 2:
        raise UsageError(f"branch_after must be in 1..{n - 2} for a walk of {n} steps, whose last adds no "
                         f"noise; got {branch_after}")
    return Tree(leaves, shared)


def reads_weights(card: Mapping[str, Any]) -> bool:
    """Whether the network was trained to read expected weights off clean actions."""
    training = card.get("training")
    settings = training.get("settings") if isinstance(training, Mapping) else None
    share = settings.get("read_share") if isinstance(settings, Mapping) else None
    return isinstance(share, float | int) and share > 0


def plan_ranking(schedule: NoiseSchedule, card: Mapping[str, Any], draws: int, step: int | None,
                 mean: float | None) -> Ranking:
    """The ranking by expected weight: ``draws`` forward passes at the trained ``step`` (None: a fifth of
    T), with the weight's entry at ``mean`` (None: the training weights' mean that the card records).

    Raises `UsageError` for a step that was not trained, and where no mean is known.
    """
    T = schedule.num_steps
    step = T // 5 if step is None else step
    if not 0 <= step < T:
        raise UsageError(f"ranking_step must be in 0..{T - 1}, the trained steps; got {step}")
    if mean is None:
        training = card.get("training")
        weights = training.get("weights") if isinstance(training, Mapping) else None
        mean = weights.get("mean") if isinstance(weights, Mapping) else None
    if mean is None:
        raise UsageError("ranking by expected weight needs the mean of the training weights, which this "
                         "policy's card does not record; give it as ranking_mean")
    return Ranking(step, draws, float(mean), float(schedule.sigmas[step]), T)
