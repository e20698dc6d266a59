"""Distillations of a second, for tests of what becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_network, make_recording
from safetensors.torch import load_file

from swg_fast import NoiseSchedule, Policy, TwinQ, ValueNetwork
from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.method.networks import EnsembleQ, Ranker
from swg_fast.training.distillation import pairs, run, shards
from swg_fast.training.distillation.run import Teaching, distill
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.loop import LoopOptions

S, A, T = 4, 2, 5
# The sizes are `small_teacher`'s, whose weights a student then begins from.
SMALL = {"pairs": 300, "steps": 40, "batch": 16, "sampler_steps": 4, "hidden_dim": 16, "weight_loss": 4.0}
FAMILY = {"functions": "expectile:0.6:0.95,dice", "mean_weights": [[0.3] * 17, [0.2] * 17]}
SHARD = 128


def small_data(episodes: int = 10) -> Transitions:
    return to_transitions(make_recording(20 * episodes, 20, S, A))


def small_teacher(family: bool = False, seed: int = 0, **defaults: object) -> Policy:
    """A teacher of random weights, in float32 on every machine."""
    card = {"training": {"weights": {"mean": 0.3}}} | ({"weight_family": FAMILY} if family else {})
    torch.manual_seed(5)
    parts = {"critic": TwinQ(S, A, 16), "value": ValueNetwork(S, 16), "ranker": Ranker(S, A, 16, 3),
             "critics": EnsembleQ(S, A, 16, 3)}
    network = make_network(S + 3 * family, A, 16, 2, seed=seed)
    return Policy(network, NoiseSchedule.vp(T), card=card, defaults={"dtype": "fp32"} | defaults, **parts)


def small_distill(out: Path, teacher: Policy | None = None, data: Transitions | None = None,
                  changes: dict[str, object] | None = None, stop_after: int | None = None, every: int = 10,
                  **more: object) -> Path:
    """`distill` with `SMALL` settings and ``changes``, a saved state ``every`` few steps; ``more`` are its
    own keywords. On one thread: on a busy machine two wait for each other at every layer."""
    settings = DistillSettings(**SMALL | (changes or {}))
    options = LoopOptions(out / "states", log_every=every, save_every=every, progress=False,
                          stop_after=stop_after)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return distill(Teaching.of(teacher or small_teacher(), settings), data or small_data(), out,
                       options=options, **more)
    finally:
        torch.set_num_threads(threads)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def refused(*arguments: object, **keywords: object) -> None:
    """In the place of what must not be done again."""
    raise AssertionError((arguments, keywords))


def use_small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of `SHARD` pairs, so that a few hundred pairs have several."""
    for module in (pairs, shards):
        monkeypatch.setattr(module, "SHARD", SHARD)
    monkeypatch.setattr(run, "MEASURED", SHARD + 30)


def observations(data: Transitions) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(data.observations))
