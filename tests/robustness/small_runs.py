"""Trainings of seconds, for tests of what may happen to a run."""

from __future__ import annotations

from conftest import make_recording

from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.training import run
from swg_fast.training.loop import LoopOptions
from swg_fast.training.settings import TrainSettings

SMALL = {
    "critic_steps": 40,
    "actor_steps": 40,
    "critic_batch": 8,
    "actor_batch": 8,
    "hidden_dim": 16,
    "num_blocks": 2,
    "num_steps": 3,
    "dropout": 0.0,
}


def small_data() -> Transitions:
    return to_transitions(make_recording(200, 20, 4, 2))


def train(data, out, resume=False, changes=(), **more):
    """`run.train` with `SMALL` settings; ``more`` are options of the loop."""
    options = {"log_every": 10, "save_every": 10, "progress": False} | more
    return run.train(data, TrainSettings(**SMALL | dict(changes)), out, resume=resume,
                     options=LoopOptions(out / "states", **options))
