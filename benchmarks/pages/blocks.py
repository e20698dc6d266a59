"""Makes a page's blocks: the text between `<!-- made: NAME ARGUMENTS -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swg_fast.common.read_files import read_json

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"<!-- made: (\S+)(.*?) -->\n.*?<!-- end -->", re.S)
# Name -> a table, or figures by name for the block's template (its name and arguments, with hyphens).
BLOCKS: dict[str, Callable[..., str | dict[str, Any]]] = {}


def block(function: Callable[..., str | dict[str, Any]]) -> Callable[..., str | dict[str, Any]]:
    """Registers ``function`` under its name, with hyphens."""
    BLOCKS[function.__name__.replace("_", "-")] = function
    return function


def recorded(name: str) -> Any:
    """The JSON of that name in benchmarks/results."""
    return read_json(ROOT / "benchmarks" / "results" / name)


def made(name: str, *arguments: str) -> str:
    """A block's text, without its markers."""
    found = BLOCKS[name](*arguments)
    if isinstance(found, str):
        return found
    template = Path(__file__).parent / "templates" / f"{'-'.join((name, *arguments))}.md"
    return template.read_text().rstrip("\n").format(**found)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def score(name: str, scale: float, n: int = 1, select: tuple[str, ...] = ("none", "expected_weight")) -> str:
    """``47 [41, 53]`` of results/scores/NAME.json."""
    row = next(row for row in recorded(f"scores/{name}.json")["rows"] if row["select"] in select
               and (row["guidance_scale"], row["n_candidates"]) == (scale, n))
    low, high = (round(row["interval"][end]) for end in ("low", "high"))
    return f"{row['normalized_score']:.0f} [{low}, {high}]"


def filled(text: str) -> str:
    """``text`` with every block made anew."""
    return PLACE.sub(lambda place: f"<!-- made: {place[1]}{place[2]} -->\n"
                                   f"{made(place[1], *place[2].split())}\n<!-- end -->", text)
