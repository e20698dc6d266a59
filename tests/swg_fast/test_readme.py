"""Numbers in the pages are those of the recorded results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_speed_tables_come_from_the_bench_json():
    sys.path.insert(0, str(ROOT))
    from benchmarks.bench_table import PAGES, RESULT, markdown

    table = markdown(json.loads(RESULT.read_text()))
    assert "cpu` backend" in table and "SWG-JAX" in table
    for page in PAGES:
        assert table in page.read_text(), f"run python benchmarks/bench_table.py --write ({page.name})"


def test_training_table_comes_from_its_json():
    rows = json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text())["results"]
    text = (ROOT / "docs" / "cpu-notes.md").read_text()
    for row in rows:
        ours, jax = (f"{row[key]:.{1 if row['batch'] == 1024 else 0}f}"
                     for key in ("steps_per_second", "jax_steps_per_second"))
        cells = (f"{row['phase']}, {row['precision']}", row["batch"], ours, jax, f"{row['ratio']:.2f}")
        line = "| " + " | ".join(map(str, cells)) + " |"
        assert line in text, line
