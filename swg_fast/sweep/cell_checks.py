"""What a cell asks for, checked before anything is trained or drawn: by the records that the command line
uses and by the plan of its search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import wraps
from typing import Any

from swg_fast.common.checks import choice
from swg_fast.common.errors import UsageError
from swg_fast.common.meta_modules import shapes_only
from swg_fast.common.settings_fields import check_named
from swg_fast.envs.registry import make_env
from swg_fast.envs.tasks import MINARI, preset_for
from swg_fast.evaluation.counts import EpisodeCounts, check_drawn
from swg_fast.evaluation.toy import DATASETS, ToySettings
from swg_fast.method.networks import EnsembleQ, Ranker, ScoreNetwork, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import ENTRY
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.backends.registry import backend_class
from swg_fast.policy.model import Model
from swg_fast.policy.policy import load_policy
from swg_fast.policy.resolving import resolved
from swg_fast.policy.sampling import Execution, SamplingConfig
from swg_fast.policy.search_plan import plan_search
from swg_fast.training.distillation.run import student_config, student_walk
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.settings import TrainSettings

COUNTS = frozenset(entry.name for entry in fields(EpisodeCounts))
EXECUTION = frozenset(entry.name for entry in fields(Execution))
AUTO = {"cpu": ("cpu",), "cuda": ("torch", "triton")}  # what the backend "auto" may be on a device


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, called once for arguments that are written alike: thousands of cells share theirs."""
    found: dict[str, Any] = {}

    @wraps(function)
    def call(*arguments: Any) -> Any:
        key = repr(arguments)
        if key not in found:
            found[key] = function(*arguments)
        return found[key]

    return call


@dataclass(frozen=True)
class Prospect:
    """What is known of a cell's policy before it acts: its parts and its own sampling settings. ``number``
    stands for it in `once`."""

    model: Model = field(repr=False)
    config: SamplingConfig = field(repr=False)
    number: int = field(default_factory=itertools.count().__next__)


@dataclass(frozen=True)
class Sizes:
    """A task's numbers of state entries and of actions; None where only its data say so."""

    states: int | None
    actions: int | None


@once
def task_sizes(task: str, trust: Sequence[str]) -> Sizes:
    """The sizes of ``task``: its preset's, or its environment's. `UsageError` where there is no such task."""
    preset = preset_for(task)
    if preset.state_dim is not None or task.startswith(MINARI):
        return Sizes(preset.state_dim, preset.action_dim)
    env = make_env(task, trust=trust)
    return Sizes(env.state_dim, env.action_dim)


def finished(name: str, task: str, trust: Sequence[str]) -> Prospect:
    """The policy ``name``. `UsageError` where there is none, or where it is not for ``task``."""
    policy, wanted = load_policy(name), task_sizes(task, trust)
    sizes = Sizes(policy.state_dim, policy.action_dim)
    if wanted.states is not None and sizes != wanted:
        raise UsageError(f"policy {name} is for states of {sizes.states} and actions of {sizes.actions}, and "
                         f"{task} has {wanted.states} and {wanted.actions}; give a policy trained on it")
    return Prospect(policy.model, policy.config)


def to_train(settings: TrainSettings) -> Prospect:
    """What ``settings`` will train, as far as the plan of a search depends on it."""
    return _to_train(settings.schedule, settings.num_steps, settings.family(), settings.read_share,
                     settings.ranker_steps > 0, settings.critics is not None)


@once
def _to_train(schedule: str, num_steps: int, family: WeightFamily | None, read_share: float, ranks: bool,
              ensemble: bool) -> Prospect:
    card: dict[str, Any] = {"training": {"settings": {"read_share": read_share}, "weights": {"mean": 1.0}}}
    if family is not None:
        card["weight_family"] = family.to_card()
    with shapes_only():  # no plan depends on the sizes
        network, critic, ranker = ScoreNetwork(1, 1), TwinQ(1, 1), Ranker(1, 1) if ranks else None
        critics = EnsembleQ(1, 1) if ensemble else None
    model = Model(network, NoiseSchedule.by_name(schedule, num_steps), critic, card=card, ranker=ranker,
                  critics=critics)
    return Prospect(model, SamplingConfig(guidance=family.default if family is not None else None))


@once
def to_distil(teacher: Prospect, settings: DistillSettings) -> Prospect:
    """The student that ``settings`` will make of ``teacher``, alone in its policy."""
    model = teacher.model
    walk = student_walk(teacher.config, model.schedule.num_steps, settings)
    card = model.card | {ENTRY: {"walk": asdict(walk)}}
    return Prospect(replace(model, card=card), student_config(teacher.config, walk))


def sampling_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation that `Policy.sample` takes."""
    return {name: value for name, value in settings.items() if name not in COUNTS}


def counts_of(settings: Mapping[str, Any]) -> EpisodeCounts:
    """The numbers of an evaluation, its defaults filled in."""
    return EpisodeCounts(**{name: value for name, value in settings.items() if name in COUNTS})


@once
def check_evaluation(chosen: Mapping[str, Any], prospect: Prospect, device: str) -> None:
    """`UsageError` for settings that `evaluate` would refuse for this policy on ``device``."""
    given = dict(chosen)
    config = given.pop("config", None)
    given = sampling_of(check_named((EpisodeCounts, SamplingConfig, Execution), given, "setting"))
    execution = Execution(**{name: given.pop(name) for name in EXECUTION & given.keys()})
    check_type(execution, device)
    search = resolved(prospect.config, config, given, prospect.model)
    check_drawn(search)
    plan_search(search, prospect.model, prospect.model.family)


def check_type(execution: Execution, device: str) -> None:
    """`UsageError` for a compute type that the backend does not have."""
    names = AUTO[device] if execution.backend == "auto" else (execution.backend,)
    known = dict.fromkeys(kind for name in names for kind in backend_class(name).dtypes)
    choice("dtype", execution.dtype, ("auto", *known))


def check_toy(chosen: Mapping[str, Any]) -> ToySettings:
    """The settings of a section [toy]. `UsageError` for what `run_toy` would refuse."""
    given = dict(chosen)
    choice("toy data", given.pop("name", None), DATASETS)
    settings = ToySettings(**check_named([ToySettings], given, "setting"))
    settings.counts()
    settings.training()
    return settings
