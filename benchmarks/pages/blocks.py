"""What makes a page's blocks: a block stands between `<!-- made: NAME ARGUMENTS -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"<!-- made: (\S+)(.*?) -->\n.*?<!-- end -->", re.S)
# Name -> a table, or the figures by name that templates/NAME.md takes.
BLOCKS: dict[str, Callable[..., str | dict[str, Any]]] = {}


def block(function: Callable[..., str | dict[str, Any]]) -> Callable[..., str | dict[str, Any]]:
    """Registers ``function`` under its name, with hyphens."""
    BLOCKS[function.__name__.replace("_", "-")] = function
    return function


def recorded(name: str) -> Any:
    """The JSON of that name in benchmarks/results."""
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def made(name: str, *arguments: str) -> str:
    """A block's text, without its markers."""
    found = BLOCKS[name](*arguments)
    if isinstance(found, str):
        return found
    return (Path(__file__).parent / "templates" / f"{name}.md").read_text().rstrip("\n").format(**found)


def filled(text: str) -> str:
    """``text`` with every block made anew."""
    return PLACE.sub(lambda place: f"<!-- made: {place[1]}{place[2]} -->\n"
                                   f"{made(place[1], *place[2].split())}\n<!-- end -->", text)
