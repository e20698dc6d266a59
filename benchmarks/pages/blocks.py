"""Makes a page's blocks and figures.

A block is the text between `<!-- made: NAME ARGUMENTS -->` and `<!-- end -->`, each on a line of its own. A
figure stands within a line, between `<!-- figure: NAME ARGUMENTS -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swg_fast.common.read_files import read_json

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"<!-- made: (\S+)(.*?) -->\n.*?<!-- end -->", re.S)
FIGURE = re.compile(r"<!-- figure: (\S+) (.*?) -->.*?<!-- end -->")
FIGURES: dict[str, Callable[..., str]] = {}
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


def filled(text: str) -> str:
    """``text`` with every block and every figure made anew."""
    text = PLACE.sub(lambda place: f"<!-- made: {place[1]}{place[2]} -->\n"
                                   f"{made(place[1], *place[2].split())}\n<!-- end -->", text)
    return FIGURE.sub(lambda place: f"<!-- figure: {place[1]} {place[2]} -->"
                                    f"{FIGURES[place[1]](*place[2].split())}<!-- end -->", text)
