"""How to sample, as one record.

`SamplingConfig` is the method, `Execution` what carries it out. The defaults, the checks, the options of the
command line, a model card's part, the axes of a sweep and the table in the docs are made from their fields.

What a call names wins; then the policy's own settings (its model card's, or ``Policy(defaults=...)``); then
the defaults below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from swg_fast.common.checks import MAX_CANDIDATES, MAX_SCALE, shown
from swg_fast.common.errors import UsageError
from swg_fast.common.settings_fields import check_fields, check_named, is_optional, setting
from swg_fast.method.sampler_names import READOUTS, SAMPLERS, STUDENT, WEIGHT_CLIP
from swg_fast.policy.backend_names import BACKENDS
from swg_fast.policy.ranking_names import RANKINGS

EXPECTATIONS = ("draws", "ranker", "read")
FILTERS = ("expected_weight", "support")
AUTO_LEAVES, AUTO_FROM = 16, 256  # what leaves="auto" picks, and from how many candidates on
SCALE: dict[str, Any] = {"bottom": -MAX_SCALE, "top": MAX_SCALE}
COUNT: dict[str, Any] = {"min": 1, "top": MAX_CANDIDATES}


def _guidance(name: str, value: Any) -> str:
    from swg_fast.method.weight_family import guidance_text

    return guidance_text(name, value)


@dataclass(frozen=True)
class SamplingConfig:
    """The settings of a search: how candidates are drawn, and which of them is kept."""

    n_candidates: int = setting(
        16, "Candidates drawn for a state; the best is kept. auto, for a call: as many as another training's "
            "critic found enough.", words=("auto",), flags=("-n", "--candidates"), **COUNT)
    guidance_scale: float = setting(1.0, "Guidance scale rho of Algorithm 2; 0 is unguided.",
                                    flags=("-g", "--guidance-scale"), **SCALE)
    temperature: float | None = setting(
        None, "Scale of the noise. Left out: 1, or 0 for one candidate alone, the paper's plain SWG.", min=0,
         top=MAX_SCALE)
    select: str = setting(
        "max_weight", "Which candidate is kept: that of the highest predicted weight; of the highest "
        "expected weight (see ranking); of the highest min(Q1, Q2); of the highest lower confidence bound of "
        "the weight over the ranker's networks (lcb_weight), or of Q over an ensemble of critics (lcb_q); "
        "softmax, with a probability that grows "
        "with the weight; support, of a high expected weight near the data; chi_squared, a draw that does "
        "not trust the highest weights alone; or none, the first.", choices=RANKINGS, noun="selection")
    selection_temperature: float | str = setting(
        1.0, "Of softmax: the probability is proportional to weight ** (1 / selection_temperature); auto: "
        "the one that was fitted to the noise of this policy's weights. Of chi_squared: the higher, the more "
        "candidates it draws from.", min=0, min_open=True, words=("auto",))
    support_penalty: float = setting(
        1.0, "For support: the cost of a standard deviation of the re-noised error, in standard deviations "
             "of the expected weight's logarithm.", min=0, top=MAX_SCALE)
    pessimism: float = setting(
        1.0, "For lcb_weight and lcb_q: how many of the ensemble's standard deviations the bound lies below "
             "its mean.", min=0, top=MAX_SCALE)
    # the walk
    sampler: str = setting("ddpm", "ddpm (Algorithm 2), ddpm_x0 (clips the predicted clean sample), a "
                                   "solver, which can walk fewer steps, or the policy's student, which "
                                   "takes a call or few.", choices=(*SAMPLERS, STUDENT))
    sampler_steps: int | None = setting(
        None, "Steps that a solver walks, evenly spaced among the trained ones. Left out: all.", **COUNT)
    guidance_interval: tuple[int, int] | None = setting(
        None, "The trained steps that are guided, the lowest and the highest, of 0 to T - 1; the last step "
              "walked is 0. Left out: all.")
    guidance: str | None = setting(
        None, "The weight function that guides, such as expectile:0.9, of a policy trained with a family. "
              "Left out: the first function, with the middle of its range.", check=_guidance)
    weight_clip: tuple[float, float] = setting(
        WEIGHT_CLIP, "The range to which predicted weights are clipped.")
    weight_readout: str = setting("exact", "How the weight is read off its noisy entry: exact, or as the "
                                           "authors' code does.", choices=READOUTS, noun="weight read-out")
    clip_denoised: bool = setting(True, "Clip what is denoised to the actions' range, at every step.")
    finish: int | None = setting(
        None, "For sampler student: the teacher walks this many of the candidates, those that the student "
              "ranks highest, and one of them is kept. Left out: the teacher walks none.", **COUNT)
    # the tree
    leaves: int | str = setting(
        1, f"Candidates that share a root's first steps; auto: {AUTO_LEAVES} from N = {AUTO_FROM} on.",
        words=("auto",), **COUNT)
    branch_after: int | None = setting(None, "Steps that the leaves share. Left out: four fifths.", **COUNT)
    # ranking by expected weight
    keep_share: float = setting(1.0, "Select from this share of a state's candidates, the best by keep_by.",
                                min=0, max=1, min_open=True)
    keep_by: str = setting("expected_weight", "How that share is chosen: by the expected weight (see "
                                              "ranking), or by the support of the data.", choices=FILTERS)
    average_share: float = setting(
        0.0, "The action is the mean of this share of a state's candidates, those that rank highest. 0: it "
             "is the highest alone.", min=0, max=1)
    support_draws: int = setting(2, "Forward passes that estimate the support.", min=1, top=2**16)
    ranking: str = setting(
        "draws", "Where an expected weight comes from: draws (the action noised again, several forward "
                 "passes), the policy's ranker, or read (one pass of a network trained with --read-share).",
        choices=EXPECTATIONS)
    ranking_draws: int = setting(8, "Forward passes that estimate an expected weight.", min=1, top=2**16)
    ranking_step: int | None = setting(
        None, "The trained step to which draws noise an action again. Left out: a fifth of T.", min=0,
        top=MAX_CANDIDATES)
    ranking_mean: float | None = setting(
        None, "The mean of the training weights. Left out: what the model card records.", **SCALE)

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.n_candidates, str):
            raise UsageError("n_candidates='auto' is for a call, such as sample; a config has a number")

    @property
    def averaged(self) -> int:
        """How many of a state's candidates the action is the mean of."""
        return math.ceil(self.average_share * self.n_candidates) or 1

    @property
    def choice(self) -> str:
        """What an action is chosen by, in words."""
        return self.select + (f", mean of the best {self.averaged:,}" if self.averaged > 1 else "")


@dataclass(frozen=True)
class Execution:
    """What carries a search out; it changes no result beyond rounding."""

    backend: str = setting("auto", "auto, or a backend that 'info' lists.", choices=("auto", *BACKENDS))
    dtype: str = setting("auto", "Compute type: fp32, bf16, ...; auto is bf16 on GPUs from compute "
                                "capability 8.0 on, and of backend cpu where the processor has it, or fp32.")
    chunk: int | None = setting(None, "Candidates in memory at once. Left out: the backend's own.", **COUNT)

    def __post_init__(self) -> None:
        check_fields(self)


# Some settings by one name; what they do not name stays the policy's own.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"n_candidates": 1, "sampler": "ddpm", "leaves": 1},  # plain SWG: one guided walk, no noise
    "fast": {"sampler": "dpmpp_2m", "sampler_steps": 8, "leaves": "auto"},
    "best": {"sampler": "ddpm", "leaves": 1},  # all trained steps, every candidate a walk of its own
}
# A setting that means nothing without another: naming the first alone sets the second back.
DEPENDENTS = {"sampler": ("sampler_steps", "finish"), "leaves": ("branch_after",)}
NAMES = tuple(entry.name for entry in fields(SamplingConfig))
OWN = (*NAMES, "dtype")  # what a policy may have settings of its own for


def check_overrides(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Settings of `SamplingConfig` and `Execution` by name, each checked. None means "not given" and is left
    out.

    Raises `UsageError`, which ``source`` opens, for an unknown name, a wrong type or a value out of range.
    """
    try:
        return check_named((SamplingConfig, Execution), values, "sampling setting")
    except UsageError as error:
        raise UsageError(f"{source}: {error}" if source else str(error)) from None


def own_settings(values: Any) -> tuple[SamplingConfig, Execution]:
    """A policy's own settings from ``values``: a config, or names and values, as a model card has them.

    Raises `UsageError` for a name that is no setting, or a value of the wrong kind.
    """
    if isinstance(values, SamplingConfig):
        return values, Execution()
    if not isinstance(values, Mapping | None):
        raise UsageError(f"sampling defaults are {type(values).__name__}, expected names and values such as "
                         '{"n_candidates": 64}')
    values = values or {}
    unknown = [str(name) for name in values if name not in OWN]
    if unknown:
        raise UsageError(f"unknown sampling default {unknown[0]!r}; use one of {', '.join(OWN)}")
    known = {entry.name: entry for record in (SamplingConfig, Execution) for entry in fields(record)}
    empty = [name for name, value in values.items() if value is None and not is_optional(known[name])]
    if empty:
        raise UsageError(f"sampling default {empty[0]!r} has no value; give one, or leave it out")
    given = check_overrides(values, "sampling defaults")
    execution = Execution(dtype=given.pop("dtype", "auto"))
    return SamplingConfig(**given), execution


def card_entry(config: SamplingConfig, execution: Execution) -> dict[str, Any]:
    """What a model card keeps: `own_settings` gives both back."""
    entries = asdict(config) | {"dtype": execution.dtype}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}


def resolve(own: SamplingConfig, config: SamplingConfig | str | None, given: Mapping[str, Any],
            scale: float | None = None) -> SamplingConfig:
    """The config of a search: a policy's ``own``, or a whole ``config`` in its place, or `PRESETS`' of a name
    over it, and what is ``given`` by name over that. Its temperature and leaves are numbers.

    One candidate is drawn at temperature 0, the paper's plain SWG, unless a temperature was named. A sampler
    that was named walks all steps unless their number was named too. A tree that was not named gives way to
    what it does not fit; so does an average to a selection that ranks nothing. Where the student is chosen
    and no guidance scale is named, it is ``scale``, the student's own.

    Raises `UsageError` for another config, and for branch_after beside leaves="auto".
    """
    named: dict[str, Any] = {}
    if isinstance(config, SamplingConfig):
        own, named = config, {name: value for name, value in vars(config).items() if value is not None}
    elif isinstance(config, str) and config in PRESETS:
        named = dict(PRESETS[config])
    elif config is not None:
        raise UsageError(f"config is {shown(config)}; give a SamplingConfig, one of {', '.join(PRESETS)}, or "
                         "settings by name, such as n_candidates=64")
    for name, dependents in DEPENDENTS.items():
        if name in given:
            named = {key: value for key, value in named.items() if key not in dependents}
        if name in given or name in named:
            cleared: dict[str, Any] = dict.fromkeys(dependents)
            own = replace(own, **cleared)
    named |= given
    values = vars(own) | named
    if values["leaves"] == "auto" and "branch_after" in named:
        raise UsageError(f"branch_after={named['branch_after']} needs a number of leaves; leaves='auto' "
                         "picks both")
    if values["n_candidates"] == 1 and "temperature" not in named:
        values["temperature"] = 0.0
    elif values["temperature"] is None:
        values["temperature"] = 1.0
    if values["finish"] is not None and "finish" not in named:
        values["finish"] = min(values["finish"], values["n_candidates"])
    if values["sampler"] == STUDENT and own.sampler != STUDENT and "guidance_scale" not in named:
        values["guidance_scale"] = scale if scale is not None else values["guidance_scale"]
    if values["select"] == "none" and "average_share" not in named:
        values["average_share"] = 0.0
    if values["leaves"] == "auto":
        values |= {"leaves": auto_leaves(values), "branch_after": None}
    if "leaves" not in named and not _tree_fits(values):
        values |= {"leaves": 1, "branch_after": named.get("branch_after")}
    return SamplingConfig(**values)


def auto_leaves(values: Mapping[str, Any]) -> int:
    """What ``leaves="auto"`` picks: 16 from 256 candidates on, else 1.

    There a tree took a half (256) and a third (1,024) of the time and kept as good a candidate by the critic
    of another seed (`benchmarks/results/decisions-umaze.json`, contenders ours and tree). With 64 it saved
    less, and what it kept was worse.
    """
    fits = values["n_candidates"] >= AUTO_FROM and _tree_fits(dict(values) | {"leaves": AUTO_LEAVES})
    steps = values["sampler_steps"]
    return AUTO_LEAVES if fits and (steps is None or steps >= 3) else 1


def _tree_fits(values: Mapping[str, Any]) -> bool:
    whole_roots = values["n_candidates"] % values["leaves"] == 0
    noisy = values["sampler"] != STUDENT and SAMPLERS[values["sampler"]].stochastic
    return whole_roots and noisy and values["temperature"] != 0
