"""What the JSON files of a sweep hold: sweep.json, a finished cell's file, and a report's results.json.

Each is held against its declaration where it is read, so that reports need not look again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict  # pydantic cannot read that of Python 3.11

from swg_fast.common.provenance import Provenance
from swg_fast.common.read_files import read_json, validated
from swg_fast.sweep.views import Asked

FORMAT = 1
AGAIN = "give the folder that 'swg-fast sweep --out' wrote"
Value = str | int | float | bool | list[Any] | None  # of an axis


class TrainingJson(TypedDict):
    """A `Training`. A newer version's further fields are refused."""

    task: str
    source: str
    data_hash: str
    settings: dict[str, Any]
    distill: NotRequired[dict[str, Any]]  # older ones have none
    key: str


class CellJson(TypedDict):
    """A `Cell`. A newer version's further fields are refused."""

    kind: Literal["evaluate", "toy"]
    axes: dict[str, Value]
    settings: dict[str, Any]
    task: str | None
    policy: str | None
    policy_hash: str | None
    training: TrainingJson | None
    rank: dict[str, int]
    key: str


class Evaluated(TypedDict):
    """What a report reads of an evaluation's result."""

    score: float | None
    scores: list[float]
    successes: NotRequired[int]
    episode_lengths: NotRequired[list[int]]
    rank_correlations: NotRequired[list[float | None]]
    training: NotRequired[dict[str, Any]]
    seconds: NotRequired[dict[str, float]]


class Distances(TypedDict, total=False):
    """A toy's distances."""

    guided_to_target: Required[float]
    unguided_to_target: float
    unguided_to_data: float
    floor: float


class Toy(TypedDict):
    """A toy's result."""

    distances: Distances


class Finished(CellJson):
    """A finished cell's file."""

    result: dict[str, Any]
    seconds: float
    run: NotRequired[dict[str, Any]]
    provenance: NotRequired[Provenance]
    versions: NotRequired[dict[str, str]]  # instead of a provenance, in an older file


class Missing(CellJson):
    """A cell without a result, after ``at`` results in the order of the sweep."""

    at: int


class SweepJson(TypedDict):
    """sweep.json."""

    format: Literal[1]
    title: str
    question: str
    run: dict[str, Any]
    report: list[Asked]
    provenance: NotRequired[Provenance]  # older ones have none
    cells: list[CellJson]


class Titles(TypedDict):
    """What results.json keeps of sweep.json."""

    title: str
    question: str
    report: list[Asked]


class ResultsJson(TypedDict):
    """results.json: all data of a report."""

    results_format: Literal[1]
    cells: int
    failures: list[tuple[str, str]]
    sweep: Titles
    missing: NotRequired[list[Missing]]  # older ones do not say which
    histories: dict[str, dict[str, list[dict[str, float | None]]]]
    provenance: NotRequired[Provenance]  # the sweep's
    results: list[Finished]


class FailureJson(TypedDict):
    """A file in failed/."""

    error: str


for _strict in (TrainingJson, CellJson, Finished, Missing):
    _strict.__pydantic_config__ = {"extra": "forbid"}
for _open in (Evaluated, Distances):
    _open.__pydantic_config__ = {"extra": "allow"}


def read_finished(path: Path) -> dict[str, Any]:
    """A finished cell's file. `UsageError` where it is damaged or another version's."""
    return _with_result(read_json(path, Finished, "delete it to find the cell again"), str(path))


def read_results(path: Path) -> dict[str, Any]:
    """A report's results.json. `UsageError` where it is none."""
    found = read_json(path, ResultsJson, f"this is not a report's results.json of format {FORMAT}; give "
                                         "that, or the folder of a sweep")
    for number, result in enumerate(found["results"]):
        _with_result(result, f"{path}: results.{number}")
    return found


def _with_result(cell: dict[str, Any], name: str) -> dict[str, Any]:
    kind = Toy if cell["kind"] == "toy" else Evaluated
    cell["result"] = validated(cell["result"], kind, f"{name}: result", "make the report again")
    return cell
