"""Plans for tests of sweeps."""

from __future__ import annotations

from swg_fast.sweep.cells import resolve
from swg_fast.sweep.plan_file import read_plan

PLAN = """
title = "A plan"
task = "hopper-medium-v2"
dataset = "data.hdf5"
[train]
critic_steps = 100
[evaluate]
n_candidates = 16
episodes = 5
[grid]
train.seed = [0, 1]
evaluate.guidance_scale = [0.0, 1.0, 5.0]
[[grid.weights]]
train.weight_function = "expectile"
[[grid.weights]]
label = "exp(3 u)"
train.weight_function = "exponential"
train.weight_parameter = 3.0
[[points]]
task = "antmaze-umaze-v2"
dataset = "other.hdf5"
evaluate.n_candidates = [1, 64]
"""

TOY = """
title = "Toys"
[toy]
steps = 2
batch = 8
hidden_dim = 16
samples = 20
[grid]
toy.name = ["spiral", "rings"]
toy.seed = [0, 1, 2]
"""


def plan_of(folder, text, *overrides):
    (folder / "plan.toml").write_text(text)
    return read_plan(folder / "plan.toml", overrides)


def resolved(plan):
    return resolve(plan, lambda task, source: f"data of {source}", lambda name: f"policy {name}")
