"""The tables and pictures of docs/experiments.md, from the experiments' results.

    swg-fast sweep experiments/NAME.toml --out runs/NAME && swg-fast report runs/NAME
    cp runs/NAME/report/results.json experiments/results/NAME.json
    python benchmarks/experiment_tables.py            # puts them in their places

A place in the page is `<!-- experiment NAME VIEW METRIC -->` ... `<!-- end -->`, with `table` or `picture`
behind METRIC where only that is wanted; VIEW counts the [[report]]s.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "experiments.md"
PLACE = re.compile(r"<!-- experiment (\S+) (\d+) (\S+?)( table| picture)? -->\n(.*?)<!-- end -->", re.S)


def table(found: dict[str, Any], number: int, metric: str) -> str:
    """View ``number`` of a results.json by ``metric``, as Markdown with its caption and budget."""
    from swg_fast.sweep.report_page import describe_budget
    from swg_fast.sweep.tables import markdown
    from swg_fast.sweep.views import blocks_of, views_of

    blocks = blocks_of(views_of(found["sweep"], found["results"])[number - 1], found["results"])
    return markdown([block for block in blocks if block.name == metric], describe_budget(found["results"]))


def filled(page: str) -> str:
    """``page`` with every place's table."""
    from swg_fast.sweep.report_page import collect

    def place(match: re.Match[str]) -> str:
        name, number, metric, only, _ = match.groups()
        text = table(collect(RESULTS / f"{name}.json"), int(number), metric)
        head, rest = text.removeprefix("### ").split("\n", 1)
        parts = [] if only == " picture" else [f"**{head}**\n\n{rest}"]
        parts += [] if only == " table" else [f"![{head}](experiments/{picture(name, number, metric)})\n"]
        begin = " ".join(("experiment", name, number, metric)) + (only or "")
        return f"<!-- {begin} -->\n" + "\n".join(parts) + "<!-- end -->"

    return PLACE.sub(place, page)


def picture(name: str, number: str, metric: str) -> str:
    return f"{name}-{number}-{metric.replace(':', '-').replace('/', '-')}.png"


def main() -> None:
    from swg_fast.sweep.report_page import write_report

    page = PAGE.read_text()
    folder = ROOT / "docs" / "experiments"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, number, metric, only, _ in PLACE.findall(page):
            if only == " table":
                continue
            out = Path(temporary) / name
            if not out.exists():
                write_report(RESULTS / f"{name}.json", out)
            drawn = picture(name, number, metric)
            shutil.copy(out / drawn.removeprefix(f"{name}-"), folder / drawn)
    PAGE.write_text(filled(page))


if __name__ == "__main__":
    main()
