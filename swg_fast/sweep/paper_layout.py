"""The layout of papers: tasks in rows, a table for each family with its mean, deviations over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from swg_fast.envs.tasks import preset_for
from swg_fast.sweep.metrics import Estimate, Metric, Result
from swg_fast.sweep.views import Block, View, look_up, matches, short, shown

METRIC = Metric("score, mean and deviation over seeds", "one standard deviation", lambda cells: None)
FAMILIES = ("locomotion", "antmaze", "kitchen", "adroit", "other")  # in this order


class Entry(NamedTuple):
    """A table's cell."""

    text: str
    bold: bool = False


@dataclass
class Runs:
    """A place's runs with one value of the view's ``best`` (None where it names none): the score of each seed
    that is done, their episodes, and how many seeds the sweep has."""

    value: Any
    scores: list[float] = field(default_factory=list)
    episodes: int = 0
    planned: int = 0

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    def estimate(self) -> Estimate:
        """The mean over seeds, with a standard deviation to either side; None for a single seed."""
        spread = float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None
        low, high = (None, None) if spread is None else (self.mean - spread, self.mean + spread)
        return Estimate(self.mean, low, high, len(self.scores), self.episodes)


@dataclass(frozen=True)
class PaperBlock(Block):
    """The table of one family. ``values`` are means over seeds, with one standard deviation to either side
    in the place of an interval; ``chosen`` says what each was made of."""

    chosen: dict[tuple[Any, Any], Runs]


def paper_blocks(view: View, results: list[Result], missing: list[Result]) -> list[PaperBlock]:
    """A block for each family of tasks in ``view``. ``missing`` are the sweep's cells without a result, which
    give rows and columns too.

    Where the view names a ``best`` setting, a place has the value of it with the highest mean over seeds,
    among those with the most seeds.
    """
    places: dict[tuple[str, Any], dict[Any, Runs]] = {}
    for cell in in_order(results, missing):
        if cell["kind"] == "evaluate" and matches(cell, view.where):
            value = look_up(cell, view.best) if view.best else None
            place = cell["task"], look_up(cell, view.columns or "")
            runs = places.setdefault(place, {}).setdefault(value, Runs(value))
            runs.planned += 1
            if "result" in cell:
                runs.scores.append(cell["result"]["score"])
                runs.episodes += len(cell["result"]["scores"])
    columns = list(dict.fromkeys(column for _, column in places))
    blocks = []
    for family in FAMILIES:
        rows = sorted({task for task, _ in places if preset_for(task).family == family})
        best = {place: max(found.values(), key=lambda runs: (len(runs.scores), sum(runs.scores)))
                for place, found in places.items() if place[0] in rows}
        chosen = {place: runs for place, runs in best.items() if runs.scores}
        if rows:
            values = {place: runs.estimate() for place, runs in chosen.items()}
            blocks.append(PaperBlock(view, METRIC, "score", family, rows, columns, values, chosen))
    return blocks


def in_order(results: list[Result], missing: list[Result]) -> list[Result]:
    """The cells as the sweep has them: of a missing one ``at`` says how many results stand before it."""
    every = [(i, 1, cell) for i, cell in enumerate(results)] + [(cell["at"], 0, cell) for cell in missing]
    return [cell for *_, cell in sorted(every, key=lambda placed: placed[:2])]


def paper_rows(block: PaperBlock) -> list[list[Entry]]:
    """The table's cells, the heading line first and the family's mean last; empty where a run is missing,
    and the mean where one of its tasks is."""
    lines = [[Entry(short(block.view.rows)), *(Entry(shown(column)) for column in block.columns)]]
    for row in block.rows:
        found = [block.values.get((row, column)) for column in block.columns]
        best = max((one for one in found if one), key=lambda one: one.value, default=None)
        floor = best.value - _spread(best) if best else 0.0
        lines.append([Entry(row), *(
            Entry(_text(one, block.chosen[row, column]), one.value >= floor) if one else Entry("")
            for column, one in zip(block.columns, found, strict=True))])
    means = [_mean(block, column) for column in block.columns]
    return [*lines, [Entry("mean"), *(Entry("" if mean is None else f"{mean:.1f}") for mean in means)]]


def _mean(block: PaperBlock, column: Any) -> float | None:
    found = [block.values.get((row, column)) for row in block.rows]
    return float(np.mean([one.value for one in found if one])) if all(found) else None


def _spread(one: Estimate) -> float:
    """The standard deviation; 0 of a single seed."""
    return 0.0 if one.high is None else one.high - one.value


def _text(one: Estimate, runs: Runs) -> str:
    value = f"{one.value:.1f}" if one.high is None else f"{one.value:.1f} ± {_spread(one):.1f}"
    return value if one.runs == runs.planned else f"{value} ({one.runs} of {runs.planned} seeds)"


def paper_caption(block: PaperBlock) -> str:
    """What the numbers are, and the values that were chosen."""
    if not block.values:
        return "No run is done yet."
    seeds = sorted({one.runs for one in block.values.values()})
    episodes = sorted({one.episodes // one.runs for one in block.values.values()})
    said = (f"Mean and standard deviation over {_several(seeds)} seed(s) of the mean of {_several(episodes)} "
            "episode(s). Bold: within one deviation of the best of its row.")
    if not block.view.best:
        return said
    name = short(block.view.best)
    picks = "; ".join(f"{row} {shown(column)} {shown(runs.value)}"
                      for (row, column), runs in block.chosen.items())
    return (f"{said} Each place has the {name} of the highest mean, which these very episodes chose: others "
            f"would score less. The {name}: {picks}.")


def _several(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))


def for_picture(block: Block) -> Block:
    """A block as it is drawn: one in the layout of papers has its columns as lines over the tasks."""
    if not isinstance(block, PaperBlock):
        return block
    turned = replace(block.view, rows=block.view.columns or "", columns=block.view.rows)
    values = {(column, row): one for (row, column), one in block.values.items()}
    return Block(turned, METRIC, block.name, block.panel, block.columns, block.rows, values)
