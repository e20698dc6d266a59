"""The log lines of a run, ``logs/history.jsonl``: one JSON object a line, kept across interruptions."""

from __future__ import annotations

import json
from pathlib import Path

HISTORY = "history.jsonl"


def append_line(path: Path, phase: str, line: dict[str, float]) -> None:
    """Adds ``line`` of ``phase``, on a new line even where a crash cut the last one short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps({"phase": phase} | line).encode() + b"\n")


def read_history(path: Path) -> dict[str, list[dict[str, float]]]:
    """phase -> its lines by step; {} where there is no file.

    A resumed run repeats the steps after its last saved state: the newest line of a step counts.
    """
    phases: dict[str, dict[int, dict[str, float]]] = {}
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            phases.setdefault(line.pop("phase"), {})[line["step"]] = line
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # cut short by a crash
    return {phase: [lines[step] for step in sorted(lines)] for phase, lines in phases.items()}
