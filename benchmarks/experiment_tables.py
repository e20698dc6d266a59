"""Tables of docs/lab-notes, and the command that redraws its pictures from the experiments' results.

    swg-fast sweep experiments/NAME.toml --out runs/NAME && swg-fast report runs/NAME
    cp runs/NAME/report/results.json experiments/results/NAME.json
    python -m benchmarks.experiment_tables && python -m benchmarks.pages

A place in a page is `<!-- made: experiment NAME VIEW METRIC -->` ... `<!-- end -->`; `table` or `picture`
after METRIC makes only that. VIEW counts the [[report]]s.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
NOTES = ROOT / "docs" / "lab-notes"
PICTURED = re.compile(r"<!-- made: experiment (\S+) (\d+) (\S+)(?: picture)? -->")


def table(found: dict[str, Any], number: int, metric: str) -> str:
    """View ``number`` of a results.json by ``metric``, as Markdown with its caption and budget."""
    from swg_fast.sweep.report_page import describe_budget
    from swg_fast.sweep.tables import markdown
    from swg_fast.sweep.views import blocks_of, views_of

    blocks = blocks_of(views_of(found["sweep"], found["results"])[number - 1], found["results"])
    return markdown([block for block in blocks if block.name == metric], describe_budget(found["results"]))


def place(name: str, number: int, metric: str, only: str) -> str:
    """The content of a place in docs/lab-notes: a table, a picture, or both if ``only`` is empty."""
    from swg_fast.sweep.report_page import collect

    head, rest = table(collect(RESULTS / f"{name}.json"), number, metric).removeprefix("### ").split("\n", 1)
    parts = [] if only == "picture" else [f"**{head}**\n\n{rest.rstrip()}"]
    parts += [] if only == "table" else [f"![{head}](pictures/{picture(name, number, metric)})"]
    return "\n\n".join(parts)


def picture(name: str, number: int, metric: str) -> str:
    return f"{name}-{number}-{metric.replace(':', '-').replace('/', '-')}.png"


def main() -> None:
    from swg_fast.sweep.report_page import write_report

    folder = NOTES / "pictures"
    pages = "\n".join(page.read_text() for page in sorted(NOTES.glob("*.md")))
    with tempfile.TemporaryDirectory() as temporary:
        for name, number, metric in PICTURED.findall(pages):
            out = Path(temporary) / name
            if not out.exists():
                write_report(RESULTS / f"{name}.json", out)
            drawn = picture(name, int(number), metric)
            shutil.copy(out / drawn.removeprefix(f"{name}-"), folder / drawn)


if __name__ == "__main__":
    main()
