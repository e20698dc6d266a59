"""Figures of sweeps, shards and worker processes, for sentences of the pages."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.blocks import block, percent, recorded
from swg_fast.method.networks import ScoreNetwork


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
