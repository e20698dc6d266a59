"""A plan's cells, resolved and checked: which training each one shares, and the names of their files.

A name is a hash of everything that decides a result (settings with their defaults filled in, the data,
the policy's files), so that a sweep started again knows what is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.identity import key_of
from swg_fast.common.read_files import exists
from swg_fast.common.settings_fields import nearest
from swg_fast.envs.gymnasium_ids import check_task
from swg_fast.envs.tasks import preset_for
from swg_fast.sweep.plan_file import Plan
from swg_fast.training.settings import CRITIC, TrainSettings

EVALUATE = ("config", "episodes", "seed", "envs", "workers")  # of `evaluate` beside the sampling's settings
IDLE = {"envs", "workers"}  # how an evaluation runs, not what it finds
RANK = {"states": 64, "candidates": 128, "seed": 0}  # the defaults of a [rank] section


@dataclass(frozen=True)
class Training:
    """A training: ``settings`` are all of `TrainSettings`; ``source`` is where its data come from."""

    task: str
    source: str
    data_hash: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        return key_of({"task": self.task, "data": self.data_hash, "settings": self.settings})

    @property
    def critic_key(self) -> str:
        """What stands for its critic, which trainings may share. An older version's has fewer settings."""
        known = {name: self.settings[name] for name in CRITIC if name in self.settings}
        return key_of({"data": self.data_hash, "settings": known})


@dataclass(frozen=True)
class Cell:
    """One result to find. ``kind`` is ``evaluate`` (of a training's policy, or of ``policy``) or ``toy``;
    ``settings`` are the keywords of `evaluation.evaluate` or of `toy.run_toy`; ``axes`` is where the
    cell stands in the grid; ``rank``, where not empty, asks for the rank correlation too."""

    kind: str
    axes: dict[str, Any]
    settings: dict[str, Any]
    task: str | None = None
    policy: str | None = None
    policy_hash: str | None = None
    training: Training | None = None
    rank: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        settings = {k: v for k, v in self.settings.items() if k not in IDLE}
        return key_of({"kind": self.kind, "task": self.task, "policy": self.policy_hash,
                       "training": self.training and self.training.key, "settings": settings,
                       "rank": self.rank})

    @property
    def label(self) -> str:
        """Where the cell stands, in words."""
        return ", ".join(f"{name.split('.')[-1]} {value}" for name, value in self.axes.items()) or self.kind

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, and the axes by theirs."""
        found: dict[str, Any] = {"task": self.task, "policy": self.policy}
        if self.training:
            found |= {f"train.{k}": v for k, v in self.training.settings.items()}
        return found | {f"{self.kind}.{k}": v for k, v in self.settings.items()} | self.axes

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"key": self.key, "training": self.training and
                               asdict(self.training) | {"key": self.training.key}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        """The inverse of `to_json`."""
        value = {k: v for k, v in value.items() if k != "key"}
        training = value.pop("training")
        if training:
            training = Training(**{k: v for k, v in training.items() if k != "key"})
        return cls(**value, training=training)


def resolve(plan: Plan, hash_data: Callable[[str, str], str], hash_policy: Callable[[str], str]
            ) -> list[Cell]:
    """Every cell of ``plan`` once, checked. ``hash_data`` (task, source) and ``hash_policy`` (name) stand
    for what the cells read.

    Raises `UsageError`, naming the cell, for a setting that does not exist or a value out of range.
    """
    cells: dict[str, Cell] = {}
    data, policy = cache(hash_data), cache(hash_policy)
    for settings, axes in plan.cells():
        try:
            cell = _cell(settings, axes, data, policy)
        except UsageError as error:
            where = ", ".join(f"{name} = {value}" for name, value in axes.items())
            raise UsageError(f"cell {where}: {error}" if where else str(error)) from error
        cells.setdefault(cell.key, cell)
    return list(cells.values())


def _cell(values: dict[str, Any], axes: dict[str, Any], hash_data: Callable[[str, str], str],
          hash_policy: Callable[[str], str]) -> Cell:
    sections = {name: _section(values, name) for name in ("train", "evaluate", "rank", "toy")}
    task, name = values.get("task"), values.get("policy")
    if any(key == "toy" or key.startswith("toy.") for key in values):
        return Cell("toy", axes, _toy_settings(sections["toy"]))
    if not isinstance(task, str):
        raise UsageError("no task; set task = \"antmaze-umaze-v2\" or another, or a [toy]")
    preset_for(task)
    _check_evaluation(sections["evaluate"])
    if unknown := sorted(set(sections["rank"]) - set(RANK)):
        raise UsageError(f"unknown setting rank.{unknown[0]}; use one of {', '.join(RANK)}")
    asked = any(key == "rank" or key.startswith("rank.") for key in values)
    rank = RANK | sections["rank"] if asked else {}
    if name is not None:
        if sections["train"]:
            raise UsageError("a cell has either a policy or training settings; take out one of them")
        if rank:
            raise UsageError("[rank] draws states from a training's data and the cell has a finished policy; "
                             "leave out [rank], or train")
        name = _whole(str(name))
        return Cell("evaluate", axes, sections["evaluate"], task, name, hash_policy(name))
    check_task(task)
    chosen = training_settings(task, sections["train"])
    source = values.get("dataset", task)
    source = _whole(str(source.get(task, task) if isinstance(source, dict) else source))
    training = Training(task, source, hash_data(task, source), chosen.to_dict())
    return Cell("evaluate", axes, sections["evaluate"], task, training=training, rank=rank)


def training_settings(task: str, chosen: dict[str, Any]) -> TrainSettings:
    """``chosen`` over the task's preset over the paper's defaults, as ``swg-fast train`` has it."""
    return TrainSettings.from_dict(dict(preset_for(task).training) | chosen)


def _whole(name: str) -> str:
    """A path that exists in full, since workers run elsewhere; another name as it is."""
    return str(user_path(name).absolute()) if exists(name) else name


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{name}.")}


def _check_evaluation(chosen: dict[str, Any]) -> None:
    """`UsageError` for keywords of `evaluation.episodes.evaluate` that it would refuse, the policy aside."""
    from swg_fast.policy.sampling import Execution, SamplingConfig, check_overrides, resolve

    known = [*EVALUATE, *(entry.name for record in (SamplingConfig, Execution) for entry in fields(record))]
    for name in chosen:
        if name not in known:
            raise UsageError(f"unknown setting evaluate.{name}; {nearest(name, known)}")
    check_overrides({name: value for name, value in chosen.items() if name not in EVALUATE})
    resolve(SamplingConfig(), chosen.get("config"), {})


def _toy_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """All settings of a toy, its name among them. `UsageError` for what it would refuse."""
    from swg_fast.evaluation.toy import DATASETS, ToySettings

    known = ["name", *(entry.name for entry in fields(ToySettings))]
    for name in chosen:
        if name not in known:
            raise UsageError(f"unknown setting toy.{name}; {nearest(name, known)}")
    name = chosen.get("name")
    if name not in DATASETS:
        raise UsageError(f"toy.name is {name!r}; use one of {', '.join(DATASETS)}")
    settings = ToySettings(**{k: v for k, v in chosen.items() if k != "name"})
    settings.counts()
    settings.training()
    return {"name": name, **asdict(settings)}
