"""What a running sweep shows: a live table, or a line for each cell where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.estimate import TimeLeft
from swg_fast.sweep.ray_runner import Outcome
from swg_fast.sweep.store import Store

SHOWN = 12  # finished cells in the table


def headline(result: dict[str, Any]) -> str:
    """A cell's result in a few words."""
    found = result["result"]
    if "distances" in found:
        return f"{found['distances']['guided_to_target']:.4f} from the target"
    return f"score {found['score']:.1f} over {len(found['scores'])} episodes"


def duration(seconds: float | None) -> str:
    """Seconds as 42 s, 3:07 min or 1:05 h."""
    if seconds is None:
        return "not known yet"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    big, unit = (whole // 60, "min") if whole < 3600 else (whole // 3600, "h")
    small = whole % 60 if unit == "min" else whole % 3600 // 60
    return f"{big}:{small:02d} {unit}"


class Line(NamedTuple):
    """A finished training or cell in the table."""

    name: str
    text: str
    time: str


class Live:
    """Shows the outcomes that it is told."""

    def __init__(self, title: str, store: Store, trainings: list[Training], cells: list[Cell], total: int,
                 slots: int, quiet: bool = False) -> None:
        from rich.console import Console

        self.title, self.store, self.total, self.slots = title, store, total, slots
        self.trainings, self.cells = len(trainings), len(cells)
        everything: list[Training | Cell] = [*trainings, *cells]
        self.items = {item.key: item for item in everything}
        self.clock = TimeLeft(trainings, cells, slots)
        self.started = time.monotonic()
        self.finished: list[Line] = []
        self.counts = {"trained": 0, "done": 0, "failed": 0}
        self.since: dict[str, float] = {}
        self.console = Console(markup=False)  # names may hold brackets
        self.table: Any = None
        self.quiet = quiet

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the table, where the output is a terminal, until the block ends."""
        if not self.console.is_terminal or self.quiet:
            yield
            return
        from rich.live import Live as RichLive

        with RichLive(console=self.console, auto_refresh=False, transient=True) as self.table:
            yield

    def tell(self, outcome: Outcome | None) -> None:
        """Shows ``outcome``; None draws the table again."""
        if outcome is not None:
            self._take(outcome)
        if self.table is not None:
            self.table.update(self._render(), refresh=True)

    def _take(self, outcome: Outcome) -> None:
        item, training = outcome.item, isinstance(outcome.item, Training)
        name = _name(item)
        seconds = outcome.result["seconds"] if outcome.result else None
        if training and outcome.error is None:
            seconds = (time.time() - self.since[item.key]) if item.key in self.since else None
        self.clock.add(item, seconds)
        self.counts["failed" if outcome.error else "trained" if training else "done"] += 1
        text = outcome.error or ("trained" if training else headline(outcome.result))
        self.finished.append(Line(name, text, duration(seconds) if seconds is not None else ""))
        if self.table is None and not self.quiet:
            self.console.print(f"{self._summary()} | {name}: {text}", soft_wrap=True, highlight=False)

    def _summary(self) -> str:
        done = self.total - self.cells + self.counts["done"]
        parts = [f"{done} of {self.total} cells"]
        if self.trainings:
            parts.append(f"{self.counts['trained']} of {self.trainings} trainings")
        if self.counts["failed"]:
            parts.append(f"{self.counts['failed']} failed")
        return ", ".join([*parts, f"{duration(time.monotonic() - self.started)} so far",
                          f"left: {duration(self.clock.seconds())}"])

    def _render(self) -> Any:
        from rich.table import Table

        table = Table(title=self.title, caption=self._summary(), title_justify="left", caption_justify="left")
        for column in ("cell", "state", "time"):
            table.add_column(column, overflow="fold")
        for line in self.finished[-SHOWN:]:
            table.add_row(*line)
        for key, mark in sorted(self.store.marks().items(), key=lambda pair: pair[1].since):
            item = self.items.get(key)
            if item is None:
                continue
            self.since.setdefault(key, mark.since)
            table.add_row(_name(item), self._progress(item), duration(time.time() - mark.since), style="dim")
        return table

    def _progress(self, item: Training | Cell) -> str:
        """How far a training is, by its log."""
        if isinstance(item, Cell):
            return "running"
        history = self.store.history(item)
        phase = "student" if item.distill else "actor" if history.get("actor") else "critic"
        step = int(history[phase][-1]["step"]) if history.get(phase) else 0
        total = item.distill["steps"] if item.distill else item.settings[f"{phase}_steps"]
        return f"{phase} step {step:,} of {total:,}"


def _name(item: Training | Cell) -> str:
    if isinstance(item, Cell):
        return item.label
    return f"{'distillation' if item.distill else 'training'} {item.key} on {item.task}"
