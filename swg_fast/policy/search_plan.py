"""How a search is carried out: the sampler's table, the tree that candidates share, their ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from swg_fast.common.checks import number
from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import COLUMNS, Ranking, SamplerTable, Tree
from swg_fast.method.sampler_names import STUDENT
from swg_fast.method.samplers import sampler_table
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import StudentWalk
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.model import Model
from swg_fast.policy.model_card import FITTED
from swg_fast.policy.ranking_names import RANKINGS
from swg_fast.policy.sampling import SamplingConfig

COLDEST = 1e-30
MOST_ROWS = 2**36  # of the network, for one decision: a day of the fastest GPU


@dataclass(frozen=True)
class SearchPlan:
    """A checked `SamplingConfig`, worked out for one policy: what backends draw by.

    latent_dim: D, an action's entries and the weight's. ranks_by: the ranking, of `RANKINGS`. tree: None for
    single leaves. expects: where expected weights come from, one of `sampling.EXPECTATIONS`; None where
    nothing is ranked or filtered by them. ranking: there where they are estimated by draws. support: there
    where support is measured. code: what stands beside a state for the guidance chosen from a family, and for
    a student's guidance scale, [K]. student: the policy's student draws, not its diffusion.
    teacher: of a student, its teacher's plan, where that finishes candidates or expects their weights.
    """

    config: SamplingConfig
    table: SamplerTable
    latent_dim: int
    ranks_by: str
    tree: Tree | None = None
    ranking: Ranking | None = None
    expects: str | None = None
    support: Ranking | None = None
    code: torch.Tensor | None = None
    student: bool = False
    teacher: SearchPlan | None = None

    @property
    def selection_temperature(self) -> float:
        """That of softmax. Below `COLDEST` a weight's logarithm over it would be beyond float32, and all
        candidates equal; at it the highest weight is kept already."""
        return max(float(self.config.selection_temperature), COLDEST)

    @property
    def shortlist(self) -> int | None:
        """How many of a state's candidates go to the teacher; None where nobody finishes them."""
        return self.config.finish

    @property
    def pool_size(self) -> int:
        """How many of a state's candidates a search holds: one where the ranking allows; a share where they
        are filtered or averaged; some for a shortlist; all where they are ranked against one another."""
        config, N = self.config, self.config.n_candidates
        share = math.ceil(config.keep_share * N) if config.keep_share < 1 else None
        return self.shortlist or share or (N if RANKINGS[self.ranks_by].together else config.averaged)


def plan_search(config: SamplingConfig, model: Model, family: WeightFamily | None) -> SearchPlan:
    """The plan of ``config``, as `sampling.resolve` gives it.

    Raises `UsageError` for what this policy cannot do: no critic, ranker, reading head or student, other
    steps or guidance than were trained, a tree that does not fit, coefficients beyond float32's range.
    """
    config = _with_temperature(config, model.card)
    _check_judges(needed(config), config, model)
    if config.average_share and config.select == "none":
        raise UsageError(f"average_share={config.average_share:g} with select='none', which ranks nothing; "
                         "use another selection, or leave it out")
    if config.sampler == STUDENT:
        return _plan_student(config, model, family)
    if not model.has_diffusion:
        raise UsageError(f"sampler={config.sampler!r}: this policy is a student and has no diffusion to "
                         f"walk; use sampler={STUDENT!r}, or the policy that it was distilled from")
    if config.finish is not None:
        raise UsageError(f"finish={config.finish} is for candidates that a student has drawn; use "
                         f"sampler={STUDENT!r}, or leave it out")
    code = _guidance_code(config.guidance, family)
    table = sampler_table(
        config.sampler, model.schedule, config.sampler_steps, guidance_scale=config.guidance_scale,
        temperature=config.temperature, weight_clip=config.weight_clip, weight_readout=config.weight_readout,
        clip_denoised=config.clip_denoised, guidance_interval=config.guidance_interval)
    _check_coefficients(table)
    tree = plan_tree(table, config.n_candidates, int(config.leaves), config.branch_after)
    judged = _judgement(config, model, family)
    _check_work(config, table.num_steps, tree, judged.draws)
    return SearchPlan(config, table, model.network.action_dim + 1, config.select, tree, code=code,
                      **judged._asdict())


def _with_temperature(config: SamplingConfig, card: Mapping[str, Any]) -> SamplingConfig:
    """``config`` with a number as its selection temperature: for "auto" the one that the card has."""
    if config.selection_temperature != "auto":
        return config
    if config.select == "chi_squared":
        raise UsageError("selection_temperature='auto' is of select='softmax', whose scores it was fitted "
                         "to; give a number")
    if config.select != "softmax":  # nothing reads it
        return replace(config, selection_temperature=1.0)
    fitted = card.get(FITTED)
    if not isinstance(fitted, Mapping):
        raise UsageError("selection_temperature='auto' needs one that was fitted to this policy, and its "
                         "card has none; fit it with 'swg-fast rank POLICY --temperature-states 1000', or "
                         "give a number")
    return replace(config, selection_temperature=number(f"{FITTED} in the policy's card",
                                                        fitted.get("temperature"), above=0.0))


def _check_judges(needs: frozenset[str], config: SamplingConfig, model: Model) -> None:
    """`UsageError` where a network that the ranking asks is not in the policy."""
    if "critic" in needs and model.critic is None:
        raise UsageError(f"select={config.select!r} needs a critic and this policy has none; use "
                         "select='max_weight'")
    for name, part in (("ranker", model.ranker), ("critics", model.critics)):
        if name in needs and part is None:
            option = "rankers" if name == "ranker" else name
            raise UsageError(f"select={config.select!r} needs {option} and this policy has none; add them "
                             f"with 'swg-fast rank POLICY --{option} 5', or use select='max_weight'")


def _plan_student(config: SamplingConfig, model: Model, family: WeightFamily | None) -> SearchPlan:
    """The plan of a student's draws, or of the teacher's walk where that finishes all candidates."""
    walk = model.walk
    if walk is None:
        raise UsageError(f"sampler={STUDENT!r}: this policy has no student; make one with 'swg-fast "
                         "distill', or use another sampler")
    _check_student(config, walk)
    code = walk.code(config.guidance_scale)
    teachers = replace(config, sampler=walk.sampler, sampler_steps=walk.sampler_steps, finish=None)
    if config.finish == config.n_candidates and model.has_diffusion:
        return plan_search(teachers, model, family)
    own = _guidance_code(config.guidance, family)
    code = code if own is None else torch.cat([own, code])
    table = walk.table(model.schedule.num_steps, float(config.temperature or 0.0))
    weighs = by_diffusion(config)
    if not model.has_diffusion and (config.finish is not None or weighs):
        what = (f"finish={config.finish}" if config.finish is not None else
                "support" if "support" in needed(config) else f"ranking={config.ranking!r}")
        raise UsageError(f"{what} needs the diffusion that the student was distilled from, and this policy "
                         "is the student alone; use the policy that holds both, or leave it out")
    judged = _judgement(config, model, family)
    _check_work(config, len(walk.steps), None, judged.draws)
    teacher, ranks_by = None, config.select
    if config.finish is not None:
        teacher = plan_search(replace(teachers, n_candidates=config.finish), model, family)
        # The shortlist is by what the student knows.
        judged = Judgement(expects="ranker" if judged.expects == "ranker" else None)
        if weighs or RANKINGS[ranks_by].together:
            ranks_by = "max_weight"
    elif weighs:
        teacher = plan_search(teachers, model, family)
        judged = judged._replace(ranking=None)  # it is the teacher that draws
    return SearchPlan(config, table, model.network.action_dim + 1, ranks_by, code=code, student=True,
                      teacher=teacher, **judged._asdict())


def _check_student(config: SamplingConfig, walk: StudentWalk) -> None:
    """`UsageError` for settings that a student cannot have."""
    if config.leaves != 1 or config.branch_after is not None:
        raise UsageError(f"leaves={config.leaves} with sampler={STUDENT!r}: a student's candidates share no "
                         "steps, so there is nothing to branch from; use leaves=1")
    if config.sampler_steps is not None:
        raise UsageError(f"sampler_steps={config.sampler_steps} with sampler={STUDENT!r}: this one takes "
                         f"{len(walk.steps)} call(s) of its network, as it has learnt; leave it out")
    if config.guidance_interval is not None:
        raise UsageError(f"guidance_interval={config.guidance_interval} with sampler={STUDENT!r}: a student "
                         "has learnt walks that are guided in all steps; leave it out, or use another "
                         "sampler")
    for name in ("weight_clip", "weight_readout", "clip_denoised"):
        if getattr(config, name) != getattr(walk, name):
            raise UsageError(f"{name}={getattr(config, name)!r}: the student has learnt a walk with "
                             f"{getattr(walk, name)!r}; use that, or distil another")
    if config.finish is None:
        return
    if walk.of_best is not None:
        raise UsageError(f"finish={config.finish}: this student has learnt the best of {walk.of_best:,} "
                         "candidates, not where a walk from its noise ends; leave it out")
    if config.finish > config.n_candidates:
        raise UsageError(f"finish={config.finish} of {config.n_candidates} candidates; finish at most as "
                         "many as are drawn")
    if config.keep_share < 1:
        raise UsageError(f"finish={config.finish} with keep_share={config.keep_share:g}: each filters the "
                         "candidates; leave one of them out")


class Judgement(NamedTuple):
    """What is predicted of finished candidates, as `SearchPlan` has it."""

    ranking: Ranking | None = None
    expects: str | None = None
    support: Ranking | None = None

    @property
    def draws(self) -> int:
        """Forward passes of each candidate."""
        return sum(part.draws for part in (self.ranking, self.support) if part is not None)


def needed(config: SamplingConfig) -> frozenset[str]:
    """What ranking and filter need beside the sampled weights: some of `ranking_names.NEEDS`."""
    names = [config.select] + ([config.keep_by] if config.keep_share < 1 else [])
    return frozenset(need for name in names for need in RANKINGS[name].needs)


def by_diffusion(config: SamplingConfig) -> bool:
    """Whether ranking or filter need what only a diffusion predicts of finished candidates."""
    needs = needed(config)
    return "support" in needs or ("expected" in needs and config.ranking != "ranker")


def _judgement(config: SamplingConfig, model: Model, family: WeightFamily | None) -> Judgement:
    needs = needed(config)
    mean = config.ranking_mean
    if mean is None and family is not None and config.guidance is not None:
        mean = family.mean_weight(config.guidance)
    support = None
    if "support" in needs:
        support = plan_ranking(model.schedule, model.card, config.support_draws, config.ranking_step, mean)
    if "expected" not in needs:
        return Judgement(support=support)
    if config.ranking == "ranker" and model.ranker is None:
        raise UsageError("ranking='ranker' needs a ranker and this policy has none; use ranking='draws', "
                         "or add one with 'swg-fast rank POLICY --rankers 2'")
    if config.ranking == "read" and not reads_weights(model.card):
        raise UsageError("ranking='read' needs a network trained with --read-share, and this policy's "
                         "card does not say so; use ranking='draws'")
    if config.ranking != "draws":
        return Judgement(expects=config.ranking, support=support)
    ranking = plan_ranking(model.schedule, model.card, config.ranking_draws, config.ranking_step, mean)
    return Judgement(ranking, "draws", support)


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
    if not table.noisy:
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
