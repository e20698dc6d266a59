"""A small sweep: one question, a grid of cells on all cores, a report with tables and pictures.

    python examples/sweep.py [--out runs/example-sweep] [--steps 500]

It asks on 2D data which guidance scale follows the target best. It needs the extra `cluster`. Cells that are
done are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

PLAN = """
title = "Guidance scales"
question = "Which guidance scale follows the target best?"

[toy]
steps = {steps}
samples = 1000

[grid]
toy.name = ["spiral", "gaussians8"]
toy.guidance_scale = [0.0, 1.0, 5.0]
toy.seed = [0]

[[report]]
rows = "toy.name"
columns = "toy.guidance_scale"
metrics = ["distance"]
"""


def main() -> None:
    options = argparse.ArgumentParser(description="A small sweep.")
    options.add_argument("--out", type=Path, default=Path("runs/example-sweep"))
    options.add_argument("--steps", type=int, default=500)
    chosen = options.parse_args()

    chosen.out.mkdir(parents=True, exist_ok=True)
    plan = chosen.out / "plan.toml"
    plan.write_text(PLAN.format(steps=chosen.steps))
    for command in (["sweep", plan, "--out", chosen.out, "--quiet"], ["report", chosen.out]):
        subprocess.run([sys.executable, "-m", "swg_fast", *map(str, command)], check=True)
    cells = json.loads((chosen.out / "report" / "results.json").read_text())["results"]
    print(f"{len(cells)} cells; open {chosen.out / 'report' / 'index.html'}")


if __name__ == "__main__":
    main()
