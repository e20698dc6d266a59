"""How a search is carried out: the sampler's table, the tree that candidates share, their ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import COLUMNS, Ranking, SamplerTable, Tree
from swg_fast.method.samplers import sampler_table
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.model import Model
from swg_fast.policy.sampling import SamplingConfig

COLDEST = 1e-30
MOST_ROWS = 2**36  # of the network, for one decision: a day of the fastest GPU


@dataclass(frozen=True)
class SearchPlan:
    """A checked `SamplingConfig`, worked out for one policy: what backends draw by.

    latent_dim: D, an action's entries and the weight's. tree: None for single leaves. expects: where expected
    weights come from, one of `sampling.RANKINGS`; None where nothing is ranked or filtered by them. ranking:
    there where they are estimated by draws. code: what stands beside a state for the guidance chosen from a
    family, [K + 1].
    """

    config: SamplingConfig
    table: SamplerTable
    latent_dim: int
    tree: Tree | None = None
    ranking: Ranking | None = None
    expects: str | None = None
    code: torch.Tensor | None = None

    @property
    def selection_temperature(self) -> float:
        """That of softmax. Below `COLDEST` a weight's logarithm over it would be beyond float32, and all
        candidates equal; at it the highest weight is kept already."""
        return max(self.config.selection_temperature, COLDEST)


def plan_search(config: SamplingConfig, model: Model, family: WeightFamily | None) -> SearchPlan:
    """The plan of ``config``, as `sampling.resolve` gives it.

    Raises `UsageError` for what this policy cannot do: no critic, ranker or reading head, other steps or
    guidance than were trained, a tree that does not fit, coefficients beyond float32's range.
    """
    if config.select == "max_q" and model.critic is None:
        raise UsageError("select='max_q' needs a critic and this policy has none; use select='max_weight'")
    code = _guidance_code(config.guidance, family)
    table = sampler_table(
        config.sampler, model.schedule, config.sampler_steps, guidance_scale=config.guidance_scale,
        temperature=config.temperature, weight_clip=config.weight_clip, weight_readout=config.weight_readout,
        clip_denoised=config.clip_denoised)
    _check_coefficients(table)
    tree = plan_tree(table, config.n_candidates, int(config.leaves), config.branch_after)
    ranks = config.select == "expected_weight" or config.keep_share < 1
    expects, ranking = config.ranking if ranks else None, None
    if expects == "ranker" and model.ranker is None:
        raise UsageError("ranking='ranker' needs a ranker and this policy has none; use ranking='draws', "
                         "or train one with --ranker-steps")
    if expects == "read" and not reads_weights(model.card):
        raise UsageError("ranking='read' needs a network trained with --read-share, and this policy's "
                         "card does not say so; use ranking='draws'")
    if expects == "draws":
        mean = config.ranking_mean
        if mean is None and family is not None and config.guidance is not None:
            mean = family.mean_weight(config.guidance)
        ranking = plan_ranking(model.schedule, model.card, config.ranking_draws, config.ranking_step, mean)
    _check_work(config, table.num_steps, tree, ranking.draws if ranking is not None else 0)
    return SearchPlan(config, table, model.network.action_dim + 1, tree, ranking, expects, code)


def _guidance_code(guidance: str | None, family: WeightFamily | None) -> torch.Tensor | None:
    if family is not None and guidance is not None:
        return family.code(guidance)
    if guidance is not None:
        raise UsageError(f"guidance={guidance!r}: this policy was trained with one weight function; "
                         "leave guidance out, or train with --weight-function family")
    return None


def _check_coefficients(table: SamplerTable) -> None:
    held = table.coefficients.float().isfinite()
    if not bool(held.all()):
        row, column = (int(i) for i in (~held).nonzero()[-1])  # the last row comes first
        raise UsageError(f"the sampler's coefficient {COLUMNS[column]!r} of denoising step "
                         f"{table.steps[row]} is beyond float32's range; use a schedule whose betas are "
                         "further from 0 and 1")


def _check_work(config: SamplingConfig, steps: int, tree: Tree | None, draws: int) -> None:
    """`UsageError` for a decision that would not end."""
    compared = config.select != "none" or config.keep_share < 1  # else only the first is drawn
    n = config.n_candidates if compared else 1
    tree = tree or Tree(1, 0)
    rows = n * (steps - tree.shared + draws) + n * tree.shared // tree.leaves
    if rows > MOST_ROWS:
        raise UsageError(f"{n:,} candidates with {steps:,} steps and {draws:,} ranking_draws would take "
                         f"{rows:,} passes of the network for a state, over {MOST_ROWS:,}; use fewer "
                         "candidates, sampler_steps or ranking_draws")


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
