"""Learning rates that change while a phase runs."""

from __future__ import annotations

import math


def cosine(step: int, total: int) -> float:
    """The factor of a rate that falls along a cosine, from 1 at step 0 to 0 at step ``total``."""
    return 0.5 * (1.0 + math.cos(math.pi * (step / max(1, total))))
