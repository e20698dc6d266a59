"""A plan's cells, resolved and checked: which training each one shares, and the names of their files.

A name is a hash of everything that decides a result (settings with their defaults filled in, the data,
the policy's files), so that a sweep started again knows what is done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache, partial
from typing import Any

from swg_fast.common.atomic_files import user_path
from swg_fast.common.checks import text
from swg_fast.common.errors import UsageError, opened_by
from swg_fast.common.hardware import resolve_device
from swg_fast.common.identity import key_of
from swg_fast.common.read_files import exists
from swg_fast.common.settings_fields import check_named, nearest
from swg_fast.data.load import load_for
from swg_fast.envs.tasks import preset_for
from swg_fast.sweep.cell_checks import (
    Prospect,
    check_evaluation,
    check_toy,
    finished,
    once,
    task_sizes,
    to_distil,
    to_train,
)
from swg_fast.sweep.plan_file import SECTIONS, Plan
from swg_fast.sweep.settings import RankSettings, RunSettings, section
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.preflight import check_precision, check_run
from swg_fast.training.settings import CRITIC, TrainSettings

IDLE = {"envs", "workers"}  # how an evaluation runs, not what it finds


@dataclass(frozen=True)
class Training:
    """A training: ``settings`` are all of `TrainSettings`; ``source`` is where its data come from.
    ``distill``, where not empty, are all of `DistillSettings`: the training is that of a student, whose
    teacher the rest describes."""

    task: str
    source: str
    data_hash: str
    settings: dict[str, Any]
    distill: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        student = {"distill": self.distill} if self.distill else {}
        return key_of({"task": self.task, "data": self.data_hash, "settings": self.settings} | student)

    @property
    def teacher(self) -> Training:
        """The training of a student's teacher; of another it is the training itself."""
        return replace(self, distill={}) if self.distill else self

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
            found |= {f"distill.{k}": v for k, v in self.training.distill.items()}
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
    for what the cells read; they are not called before all cells are checked.

    Raises `UsageError`, naming the file and the cell, for a setting that does not exist, a value out of
    range, or what a cell's policy cannot do.
    """
    with opened_by(f"{plan.path}:"):
        plan.check_count()
        run = section("run", RunSettings, plan.run)
        checked: list[Cell] = []
        policy_of = once(finished)
        for settings, axes in plan.cells():
            where = " ".join(", ".join(f"{name} = {value}" for name, value in axes.items()).split())
            with opened_by(f"cell {where}:") if where else nullcontext():
                checked.append(_cell(settings, axes, run, policy_of))
        check_names(plan.report, checked)
    data, policy = cache(hash_data), cache(hash_policy)
    cells: dict[str, Cell] = {}
    for cell in checked:
        if cell.training:
            found = data(cell.training.task, cell.training.source)
            cell = replace(cell, training=replace(cell.training, data_hash=found))
        elif cell.policy:
            cell = replace(cell, policy_hash=policy(cell.policy))
        cells.setdefault(cell.key, cell)
    return list(cells.values())


def check_here(trainings: list[Training], run: RunSettings) -> None:
    """`UsageError` where this machine, its memory, its device or the data do not allow a training."""
    found = resolve_device(run.device)
    # One of a source after the other, so that one is in memory.
    load = lru_cache(1)(partial(load_for, trust=run.trust))
    kinds = {(t.task, t.source, key_of(t.settings | {"seed": 0})): t for t in trainings}
    for training in (kinds[key] for key in sorted(kinds)):
        data = load(training.task, training.source)
        with opened_by(f"training on {training.task}:"):
            check_run(data, TrainSettings.from_dict(training.settings), found)
    for precision in {t.distill["precision"] for t in trainings if t.distill}:
        with opened_by("[distill]"):
            check_precision(precision, found)


def check_names(report: list[dict[str, Any]], cells: list[Cell]) -> None:
    """`UsageError` where a [[report]] names what is no axis and no setting of any cell."""
    names = dict.fromkeys(name for cell in cells for name in cell.flat())
    known = {"kind", *names, *(name.rpartition(".")[2] for name in names)}
    for asked in report:
        panels = asked.get("panels", [])
        panels = [panels] if isinstance(panels, str) else panels
        single = [asked[part] for part in ("rows", "columns", "best") if part in asked]
        for name in (*single, *panels, *asked.get("where", {})):
            if name not in known:
                raise UsageError(f"[[report]] names {name!r}, no axis or setting of this sweep; "
                                 f"{nearest(name, names)}")


def _cell(values: dict[str, Any], axes: dict[str, Any], run: RunSettings,
          policy_of: Callable[..., Prospect]) -> Cell:
    """A cell whose settings are checked; the hashes of what it reads are not known yet."""
    sections = {name: _section(values, name) for name in SECTIONS}
    asked = {key.partition(".")[0] for key in values}
    if "toy" in asked:
        with opened_by("[toy]"):
            toy = {"name": sections["toy"].get("name"), **asdict(check_toy(sections["toy"]))}
        return Cell("toy", axes, toy)
    if "task" not in values:
        raise UsageError("no task; set task = \"antmaze-umaze-v2\" or another, or a [toy]")
    task = text("task", values["task"])
    task_sizes(task, run.trust)  # says where there is no such task
    rank = asdict(section("rank", RankSettings, sections["rank"])) if "rank" in asked else {}
    if "policy" in asked and (sections["train"] or sections["distill"]):
        raise UsageError("a cell has either a policy or training settings; take out one of them")
    if "policy" in asked and rank:
        raise UsageError("[rank] draws states from a training's data and the cell has a finished policy; "
                         "leave out [rank], or train")
    policy, training = None, None
    if "policy" in asked:
        policy = _whole(text("policy", values["policy"]))
        prospect = policy_of(policy, task, run.trust)
    else:
        with opened_by("[train]"):
            chosen = training_settings(task, sections["train"])
        prospect = to_train(chosen)
        training = Training(task, _source(values, task), "", dict(vars(chosen)))
        if "distill" in asked:
            with opened_by("[distill]"):
                student = distillation_settings(sections["distill"])
                prospect = to_distil(prospect, student)
            training = replace(training, distill=student.to_dict())
    with opened_by("[evaluate]"):
        check_evaluation(sections["evaluate"], prospect, run.device)
    if rank:
        with opened_by("[rank]"):
            drawn = sections["evaluate"] | {"n_candidates": rank["candidates"]}
            check_evaluation(drawn, prospect, run.device)
    return Cell("evaluate", axes, sections["evaluate"], task, policy, training=training, rank=rank)


@once
def training_settings(task: str, chosen: dict[str, Any]) -> TrainSettings:
    """``chosen`` over the task's preset over the paper's defaults, as ``swg-fast train`` has it."""
    return TrainSettings(**check_named([TrainSettings], dict(preset_for(task).training) | chosen, "setting"))


@once
def distillation_settings(chosen: dict[str, Any]) -> DistillSettings:
    """``chosen`` over the defaults, as ``swg-fast distill`` has it."""
    return DistillSettings(**check_named([DistillSettings], chosen, "setting"))


def _source(values: dict[str, Any], task: str) -> str:
    """Where the data of ``task`` come from: ``dataset``, or its entry for the task, or the task's own."""
    given = values.get("dataset", task)
    if isinstance(given, dict):
        given = given.get(task, task)
    return _whole(text("dataset", given))


def _whole(name: str) -> str:
    """A path that exists in full, since workers run elsewhere; another name as it is."""
    return str(user_path(name).absolute()) if exists(name) else name


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{name}.")}
