"""Figures of sweeps, shards and worker processes, for sentences of the pages."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.blocks import ROOT, block, percent, recorded
from benchmarks.pages.gpu import steps_a_second
from swg_fast.method.networks import ScoreNetwork
from swg_fast.sweep.plan_file import read_plan


@block
def heads() -> str:
    """Parameters of both heads on hopper-medium."""
    found = {head: sum(p.numel() for p in ScoreNetwork(11, 3, width, 3, head).parameters())
             for head, width in (("early", 128), ("joint", 133))}
    return "| head | parameters |\n|---|---|\n" + "\n".join(
        f"| `{head}` | {count:,} |" for head, count in found.items())


@block
def shards() -> dict[str, Any]:
    found = recorded("shards.json")
    two = next(row for row in found["measured"] if row["actors"] == 2)
    rate = {(row["gpus"], row["n_candidates"]): percent(row["of_linear"]) for row in found["model"]}
    return {"times": two["times_one_actor"], "n": found["candidates"],
            "call": two["milliseconds_of_a_call_of_2"], "on_8": rate[8, 2**20], "on_64": rate[64, 2**20],
            "many_on_64": rate[64, 2**24]}


@block
def worker_processes() -> dict[str, Any]:
    found = recorded("vector-envs.json")
    tasks = {name: found["tasks"][f"{name}-v2"] for name in ("hopper-medium", "antmaze-umaze")}
    memory, start = (max(task["ours"][what] / task["AsyncVectorEnv"][what] for task in tasks.values())
                     for what in ("memory_mb", "start_seconds"))
    return {"count": found["count"], "hopper": tasks["hopper-medium"]["ours_over_theirs"],
            "antmaze": tasks["antmaze-umaze"]["ours_over_theirs"], "memory": percent(memory),
            "start": percent(start)}


@block
def paper_cost() -> dict[str, Any]:
    """What experiments/paper.toml costs: by its dry run, and its trainings by the H200's recorded rates."""
    found, plan = recorded("paper-cost.json"), read_plan(ROOT / "experiments" / "paper.toml")
    (grid,) = plan.grids
    trainings = len(grid["task"]) * len(grid["train.seed"])
    rates = {phase: steps_a_second("training", phase, plan.settings[f"train.{phase}_batch"])
             for phase in ("critic", "actor")}
    seconds = sum(plan.settings[f"train.{phase}_steps"] / rate for phase, rate in rates.items())
    return found["hours"] | {"device": found["device"], "cells": found["cells"], "trainings": trainings,
                             "gpu": trainings * seconds / 3600, **rates}
