"""Two files of results side by side: an evaluation beside another, or a sweep's cells beside another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired

import numpy as np
from typing_extensions import TypedDict  # pydantic cannot read that of Python 3.11

from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import NAMES, Interval, interval_text, score_difference, score_interval
from swg_fast.common.provenance import Provenance
from swg_fast.common.read_files import read_json, validated
from swg_fast.sweep.files import read_results
from swg_fast.sweep.views import cell_of

MEND = "give the JSON of 'swg-fast evaluate --json', or the results.json of 'swg-fast report'"
WHOLE = "evaluation"  # where an evaluation stands; a cell has its task in the name
RESULTS = "results_format"  # what a report's results.json has and an evaluation's JSON lacks


class EvaluationJson(TypedDict):
    """What a comparison reads of an evaluation's JSON."""

    task: str
    policy: str
    score_name: str
    scores: list[float]
    interval: dict[str, Any] | None
    settings: dict[str, Any]
    simulator: NotRequired[dict[str, str]]
    provenance: NotRequired[Provenance]


@dataclass(frozen=True)
class Side:
    """The scores of one policy's episodes [N]. settings: all that may differ, by dotted name."""

    score_name: str
    scores: list[float]
    succeeds_or_fails: bool
    settings: dict[str, Any] = field(repr=False)

    @property
    def score(self) -> float:
        return float(np.mean(self.scores))

    @property
    def interval(self) -> Interval | None:
        """Its 95 % interval; None where `score_interval` has none."""
        return score_interval(self.scores, self.succeeds_or_fails)

    def text(self) -> str:
        """The score with its interval and the number of episodes."""
        return interval_text(self.score, self.interval, len(self.scores))

    def to_json(self) -> dict[str, Any]:
        return {"score": self.score, "interval": self.interval and asdict(self.interval),
                "episodes": len(self.scores)}


class Difference(NamedTuple):
    """A setting that differs."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Pair:
    """Two sides of the same place, ``cell`` in words."""

    cell: str
    a: Side
    b: Side

    @property
    def difference(self) -> float:
        """The score of b less that of a."""
        return self.b.score - self.a.score

    @property
    def interval(self) -> Interval | None:
        """The difference's 95 % interval; None where `score_difference` has none."""
        return score_difference(self.a.scores, self.b.scores, self.a.succeeds_or_fails)

    def text(self) -> str:
        """The difference with its interval."""
        if (found := self.interval) is None:
            return f"{self.difference:+.1f} (no interval: a single episode, or all scored the same)"
        return (f"{self.difference:+.1f}, 95 % interval {found.low:+.1f} to {found.high:+.1f} "
                f"({NAMES[found.method]})")

    def to_json(self) -> dict[str, Any]:
        return {"cell": self.cell, "a": self.a.to_json(), "b": self.b.to_json(),
                "difference": self.difference, "interval": self.interval and asdict(self.interval)}


@dataclass(frozen=True)
class Comparison:
    """What two files share. ``alone`` names the cells that have no counterpart, or several, in the other."""

    pairs: list[Pair]
    alone: list[str]

    def differences(self) -> list[Difference]:
        """The settings that differ in some pair: their values where all pairs that differ have the same."""
        found: dict[str, list[Difference]] = {}
        for pair in self.pairs:
            one, other = pair.a.settings, pair.b.settings
            for name in dict.fromkeys((*one, *other)):
                if one.get(name) != other.get(name):
                    found.setdefault(name, []).append(Difference(name, one.get(name), other.get(name)))
        return [each[0] if all(other == each[0] for other in each) else Difference(name, "several", "several")
                for name, each in found.items()]

    def to_json(self) -> dict[str, Any]:
        return {"cells": [pair.to_json() for pair in self.pairs], "alone": self.alone,
                "settings": [each._asdict() for each in self.differences()]}


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Sets two evaluations' JSON files side by side, or two reports' cell by cell where task and axes agree.

    Raises `UsageError` for a file that is neither, for one of each, for scores of different kinds, and where
    nothing agrees.
    """
    first, second = _sides(a), _sides(b)
    if (WHOLE in first) != (WHOLE in second):
        raise UsageError(f"{a} and {b}: one is an evaluation and the other a sweep; give two of a kind")
    shared = [cell for cell in first if cell in second and len(first[cell]) == len(second[cell]) == 1]
    if not shared:
        raise UsageError(f"{a} and {b}: no cell has the same task and axes in both; give two sweeps over the "
                         "same axes")
    pairs = [Pair(cell, first[cell][0], second[cell][0]) for cell in shared]
    for pair in pairs:
        if pair.a.score_name != pair.b.score_name:
            raise UsageError(f"{a} has the {pair.a.score_name} and {b} the {pair.b.score_name}, which cannot "
                             "be compared; give two results of one kind of score")
    return Comparison(pairs, sorted((first.keys() | second.keys()) - set(shared)))


def _sides(path: str | Path) -> dict[str, list[Side]]:
    """The sides of a file by the place of each: WHOLE for an evaluation, task and axes for a cell."""
    value = read_json(path, mend=MEND)
    if isinstance(value, Mapping) and RESULTS in value:
        sides: dict[str, list[Side]] = {}
        for result in read_results(Path(path))["results"]:
            if result["kind"] == "evaluate":
                sides.setdefault(_place(result), []).append(_of_cell(result))
        if not sides:
            raise UsageError(f"{path}: no evaluation is in it, only toys; {MEND}")
        return sides
    found = validated(value, EvaluationJson, str(path), MEND)
    if not found["scores"]:
        raise UsageError(f"{path}: scores: no episode; {MEND}")
    settings = {"task": found["task"], "policy": found["policy"], **found["settings"],
                **_made(found), **_named("simulator", found.get("simulator", {}))}
    wilson = (found["interval"] or {}).get("method") == "wilson"
    return {WHOLE: [Side(found["score_name"], found["scores"], wilson, settings)]}


def _place(result: dict[str, Any]) -> str:
    cell = cell_of(result)
    axes = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in cell.axes.items() if name != "task")
    return f"{cell.task}: {axes}" if axes else str(cell.task)


def _of_cell(result: dict[str, Any]) -> Side:
    found = result["result"]
    settings = cell_of(result).flat() | _made(result) | _named("simulator", found.get("simulator", {}))
    return Side(found.get("score_name", "score"), found["scores"], "successes" in found, settings)


def _made(found: Mapping[str, Any]) -> dict[str, Any]:
    """Where a result comes from, by dotted name; older files have their versions alone."""
    made = dict(found.get("provenance") or {"versions": found.get("versions", {})})
    made.pop("command", None)  # it always differs; the settings say in what
    return _named("version", made.pop("versions")) | made


def _named(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in values.items()}
