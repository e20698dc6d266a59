"""The log lines of a run, ``logs/history.jsonl``: one JSON object a line, kept across interruptions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import finite, unwritable
from swg_fast.common.errors import note

HISTORY = "history.jsonl"


Line = dict[str, Any]  # "step", and values by "PHASE/NAME": a number, or None where it was not finite


def append_line(path: Path, phase: str, line: dict[str, float]) -> None:
    """Adds ``line`` of ``phase``, on a new line even where a crash cut the last one short. `UsageError` where
    it cannot be written, on a full disk, say."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(finite({"phase": phase} | line)).encode() + b"\n")
    except OSError as error:
        raise unwritable(str(path), error) from error


def set_aside(path: Path) -> None:
    """Gives the history of a run that came to nothing another name: it is nobody's to delete."""
    if path.exists():
        free = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
        path.rename(next(name for name in free if not name.exists()))


def read_history(path: Path) -> dict[str, list[Line]]:
    """phase -> its lines by step; {} where there is no file.

    A resumed run repeats the steps after its last saved state: the newest line of a step counts. Lines that
    are none, as a crash or an editor leaves them, are skipped; a `Note` counts them.
    """
    phases: dict[str, dict[int, Line]] = {}
    skipped = 0
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if _is_line(line):
            phase = line.pop("phase")
            phases.setdefault(phase, {})[line["step"]] = finite(line)
        elif text.strip():
            skipped += text.endswith((b"\n", b"\r"))  # without an end, it is just being written
    if skipped:
        note(f"{path}: skipped {skipped} line(s) that no run writes; curves and figures lack them")
    return {phase: [lines[step] for step in sorted(lines)] for phase, lines in phases.items()}


def _is_line(line: Any) -> bool:
    """Whether ``line`` is what `append_line` writes. By hand: a sweep's live table reads thousands of them
    several times a second."""
    return (isinstance(line, dict) and isinstance(line.get("phase"), str) and type(line.get("step")) is int
            and all(value is None or type(value) in (int, float) for name, value in line.items()
                    if name != "phase"))
