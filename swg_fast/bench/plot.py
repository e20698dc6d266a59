"""Throughput against N as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe and Ito's palette, which the colour-blind can tell apart; markers differ too, for print.
COLORS = {"reference": "#999999", "torch": "#e69f00", "cpu": "#0072b2", "triton": "#d55e00",
          "jax": "#009e73", "compile": "#cc79a7", "swg-jax": "#000000"}
MARKERS = {"reference": "o", "torch": "s", "cpu": "^", "triton": "P", "jax": "D", "compile": "v",
           "swg-jax": "X"}


def plot_bench(result: dict[str, Any], path: Path) -> None:
    """Throughput against N, log-log, one line a backend and type, ceilings dashed."""
    from matplotlib.figure import Figure

    from swg_fast.files import replacing

    rows = result["results"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    states = min(row["n_states"] for row in rows)
    for backend, dtype in sorted({(row["backend"], row["dtype"]) for row in rows}):
        line = sorted((row["n_candidates"], row["candidates_per_second"]) for row in rows
                      if (row["backend"], row["dtype"], row["n_states"]) == (backend, dtype, states))
        if line:
            axes.plot(*zip(*line, strict=True), marker=MARKERS.get(backend, "x"),
                      color=COLORS.get(backend, "#56b4e9"), linestyle="-" if dtype == "bf16" else ":",
                      label=f"{backend} {dtype}")
    per_candidate = rows[0]["gflops"] / rows[0]["candidates_per_second"]
    for dtype, ceiling in sorted(result["ceiling_gflops"].items()):
        axes.axhline(ceiling / per_candidate, linestyle="--", color="black", linewidth=1)
        axes.annotate(f"products alone, {dtype}", (0.01, ceiling / per_candidate), fontsize=8,
                      xycoords=("axes fraction", "data"), va="bottom")
    axes.set(xscale="log", yscale="log",
             xlabel=f"candidates N ({states} state{'s' if states > 1 else ''})",
             ylabel="guided candidates/s", title=f"{result['device_name']}, {result['threads']} threads")
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=130)
