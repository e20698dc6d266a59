"""The README's table of measured numbers, from the JSON that `swg-fast bench` wrote.

    python benchmarks/bench_table.py [--write]

Rows are backends, columns the sizes of one state. With --write the tables between the markers in
README.md and docs/cpu-notes.md are replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from swg_fast.common.atomic_files import read_json, replacing

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "cpu-bench.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "cpu-notes.md")
BEGIN, END = "<!-- bench table -->", "<!-- end -->"
NAMES = {"reference": "eager PyTorch with autograd", "torch": "analytic gradient, eager (`torch`)",
         "compile": "the same, `torch.compile`", "jax": "jitted JAX", "swg-jax": "SWG-JAX's own sampler",
         "cpu": "**this project's `cpu` backend**"}


def markdown(result: dict[str, Any]) -> str:
    """Candidates/s of each backend and N, and how many times the eager sampler's that is."""
    rows = {(row["backend"], row["dtype"], row["n_candidates"]): row for row in result["results"]
            if row["n_states"] == 1}
    sizes = sorted({n for *_, n in rows})
    lines = ["| guided candidates/s (x eager) | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
             "|---" * (len(sizes) + 1) + "|"]
    for backend, title in NAMES.items():
        for dtype in ("fp32", "bf16"):
            found = [rows.get((backend, dtype, n)) for n in sizes]
            if any(found):
                cells = (f"{row['candidates_per_second']:,.0f} ({row['speedup_over_reference']:.1f})"
                         if row else "-" for row in found)
                lines.append(f"| {title}, {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replaced(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """``text`` with what stands between the markers replaced; as it is where it has none."""
    if begin not in text:
        return text
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end, 1)[1]}"


@click.command()
@click.option("--write", is_flag=True, help="Into README.md and docs/cpu-notes.md.")
def main(write: bool) -> None:
    table = markdown(read_json(RESULT))
    click.echo(table)
    for page in PAGES if write else ():
        with replacing(page) as temporary:
            temporary.write_text(replaced(page.read_text(), table))


if __name__ == "__main__":
    main()
