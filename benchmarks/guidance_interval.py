"""Quality against time of limited-interval guidance, on toys whose target is known.

    python -m benchmarks.guidance_interval --json benchmarks/results/toy-interval.json \\
        --plot docs/lab-notes/pictures/toy-interval.png

A network is trained for each data set. Its samples are drawn by DDPM in 15 steps, guided in a part of the
steps at several scales; their sliced Wasserstein distance to the target stands beside their time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.measuring import save
from swg_fast.cli.ending import run
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.output_paths import check_outputs
from swg_fast.evaluation.toy import ToySettings, draw_toy, sliced_wasserstein, toy_data, train_toy

DATA = ("gaussians8", "spiral")
INTERVALS = {"all": None, "lower half": (0, 7), "middle": (4, 10), "upper half": (7, 14)}
SCALES = (1.0, 1.5, 2.0, 3.0)


def measure(name: str, settings: ToySettings) -> list[dict[str, Any]]:
    """A row for each interval and scale, and one for no guidance and one for the floor."""
    policy, *_ = train_toy(name, settings, progress=False)
    data, weights, rng = toy_data(name, settings.seed)
    share = weights / weights.sum()
    target, other = (data[rng.choice(len(data), settings.samples, p=share)] for _ in range(2))
    rows: list[dict[str, Any]] = [{"data": name, "guided": "the target itself", "guidance_scale": None,
                                   "distance": sliced_wasserstein(other, target), "seconds": None}]
    cases = [("no step", None, 0.0)] + [(guided, interval, scale) for guided, interval in INTERVALS.items()
                                        for scale in SCALES]
    for guided, interval, scale in cases:
        started = time.process_time()
        points = draw_toy(policy, replace(settings, guidance_interval=interval), scale, settings.num_steps)
        seconds = time.process_time() - started
        rows.append({"data": name, "guided": guided, "guidance_scale": scale,
                     "distance": sliced_wasserstein(points, target), "seconds": seconds})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each interval and data set: the distance by scale, and the time beside that of all steps."""
    lines = ["| data | guided steps | " + " | ".join(f"scale {scale:g}" for scale in SCALES)
             + " | time, all steps = 1 |", "|---" * (len(SCALES) + 3) + "|"]
    for name in DATA:
        found = [row for row in rows if row["data"] == name]
        floor, plain = found[:2]
        lines.append(f"| {name} | the target itself | {floor['distance']:.4f}" + " | -" * len(SCALES) + " |")
        by = {guided: [row for row in found if row["guided"] == guided] for guided in INTERVALS}
        whole = _seconds(by["all"])
        lines.append(f"| {name} | none | {plain['distance']:.4f}" + " | -" * (len(SCALES) - 1)
                     + f" | {plain['seconds'] / whole:.2f} |")
        lines += [f"| {name} | {guided} | " + " | ".join(f"{row['distance']:.4f}" for row in each)
                  + f" | {_seconds(each) / whole:.2f} |" for guided, each in by.items()]
    return "\n".join(lines)


def _seconds(rows: list[dict[str, Any]]) -> float:
    return min(row["seconds"] for row in rows)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Distance over time, a panel for each data set."""
    figure = new_figure(9, 4.2)
    for axes, name in zip(figure.subplots(1, len(DATA)), DATA, strict=True):
        found = [row for row in rows if row["data"] == name]
        axes.axhline(found[0]["distance"], color="black", linewidth=1, label="floor: two draws of the target")
        for guided in ("no step", *INTERVALS):
            each = [row for row in found if row["guided"] == guided]
            axes.plot([_seconds(each)] * len(each), [row["distance"] for row in each], "o", label=guided)
            for row in each:
                axes.annotate(f"{row['guidance_scale']:g}", (_seconds(each), row["distance"]), fontsize=7,
                              xytext=(4, 0), textcoords="offset points")
        axes.set(title=name, xlabel="processor seconds, 10,000 samples", ylabel="distance to the target")
        axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8,
                  title="guided steps, the scale beside each point")
    save_figure(figure, path)


@click.command()
@click.option("--steps", default=4000, show_default=True, help="Steps of a training.")
@click.option("--json", "json_path", type=Path, help="Write the rows to this file.")
@click.option("--plot", "plot_path", type=Path, help="Draw distance over time.")
def main(steps: int, json_path: Path | None, plot_path: Path | None) -> None:
    """Measures limited-interval guidance on toys."""
    check_outputs(json=json_path, plot=plot_path)
    torch.set_num_threads(1)
    settings = ToySettings(steps=steps, batch=256)
    rows = [row for name in DATA for row in measure(name, settings)]
    click.echo(markdown(rows))
    if json_path is not None:
        save(json_path, {"settings": asdict(settings), "rows": rows})
    if plot_path is not None:
        draw(rows, plot_path)


if __name__ == "__main__":
    run(main)
