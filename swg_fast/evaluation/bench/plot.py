"""A picture of throughput: lines over N, or bars where there is one N."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swg_fast.common.figures import log_scale, new_figure, save_figure
from swg_fast.evaluation.bench.run import Bench, Row

# The Okabe-Ito palette, readable by the colour-blind; markers differ too, for print.
COLORS = {"reference": "#999999", "torch": "#e69f00", "cpu": "#0072b2", "triton": "#d55e00",
          "jax": "#009e73", "compile": "#cc79a7", "swg-jax": "#000000"}
MARKERS = {"reference": "o", "torch": "s", "cpu": "^", "triton": "P", "jax": "D", "compile": "v",
           "swg-jax": "X"}
OTHER = "#56b4e9"


def plot_bench(result: Bench, path: Path) -> None:
    """Draws the throughput for the fewest states: a line (or bar) for each backend and type, dashed lines
    for the products alone."""
    states = min(row.n_states for row in result.results)
    rows = [row for row in result.results if row.n_states == states]
    sizes = {row.n_candidates for row in rows}
    per_candidate = rows[0].gflops / rows[0].candidates_per_second
    ceilings = {dtype: value / per_candidate for dtype, value in sorted(result.ceiling_gflops.items())}
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    (_bars if len(sizes) == 1 else _lines)(axes, rows, ceilings)
    of = f"{states} state{'s' if states > 1 else ''}"
    if len(sizes) == 1:
        axes.set(xlabel=f"guided candidates/s, N = {min(sizes):,} of {of}")
    else:
        axes.set(xlabel=f"candidates N ({of})", ylabel="guided candidates/s")
    threads = result.threads
    with_threads = f", {threads} thread{'s' if threads > 1 else ''}" if rows[0].device == "cpu" else ""
    axes.set_title(result.device_name + with_threads, fontsize=11)
    save_figure(figure, path)


def _lines(axes: Any, rows: list[Row], ceilings: dict[str, float]) -> None:
    for backend, dtype in sorted({(row.backend, row.dtype) for row in rows}):
        line = sorted((row.n_candidates, row.candidates_per_second) for row in rows
                      if (row.backend, row.dtype) == (backend, dtype))
        axes.plot(*zip(*line, strict=True), marker=MARKERS.get(backend, "x"),
                  color=COLORS.get(backend, OTHER), linestyle="-" if dtype == "bf16" else ":",
                  label=f"{backend} {dtype}")
    for dtype, rate in ceilings.items():
        axes.axhline(rate, linestyle="--", color="black", linewidth=1)
        axes.annotate(f"products alone, {dtype}", (0.01, rate), fontsize=8,
                      xycoords=("axes fraction", "data"), va="bottom")
    log_scale(axes, "x", [row.n_candidates for row in rows])
    log_scale(axes, "y", [*(row.candidates_per_second for row in rows), *ceilings.values()])
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _bars(axes: Any, rows: list[Row], ceilings: dict[str, float]) -> None:
    rows = sorted(rows, key=lambda row: row.candidates_per_second)
    rates = [row.candidates_per_second for row in rows]
    bars = axes.barh([f"{row.backend} {row.dtype}" for row in rows], rates,
                     color=[COLORS.get(row.backend, OTHER) for row in rows])
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
    for dtype, rate in ceilings.items():
        axes.axvline(rate, linestyle="--", color="black", linewidth=1)
        axes.annotate(f"products alone, {dtype}", (rate, 0.02), (-4, 0), fontsize=8, rotation=90, ha="right",
                      xycoords=("data", "axes fraction"), textcoords="offset points")
    axes.set(xlim=(0, 1.12 * max([*rates, *ceilings.values()])))
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
