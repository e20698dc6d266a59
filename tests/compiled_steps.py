"""A compiled trainer held against a plain one, step by step."""

from __future__ import annotations

from typing import Any

from conftest import relative_error

from swg_fast.training.saved_state import gather_state


def check_and_follow(plain: Any, quick: Any, step: int) -> None:
    """Both have the same parameters, averages and moments; ``quick`` then goes on from ``plain``'s."""
    theirs, mine = gather_state(plain), gather_state(quick)
    assert theirs.keys() == mine.keys()
    for name, tensor in theirs.items():
        # Adam's first step divides a gradient by its own size: rounding of one near 0 counts in full.
        assert relative_error(mine[name], tensor) < 3e-5, (step, name)
        mine[name].copy_(tensor)
