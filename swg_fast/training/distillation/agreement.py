"""How far a student ends from its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """A student and its teacher in one entry: root mean square error, the teacher's standard deviation, and
    the correlation (None where one of them does not vary)."""

    error: float
    spread: float
    correlation: float | None

    def words(self) -> str:
        """The figures in a line."""
        correlation = "-" if self.correlation is None else f"{self.correlation:.3f}"
        return f"error {self.error:.3g} of {self.spread:.3g}, correlation {correlation}"


def agreement(teacher: np.ndarray, student: np.ndarray) -> Agreement:
    """How far the student is from its teacher in one entry, [n] each."""
    varied = len(teacher) > 1 and np.ptp(teacher) > 0 and np.ptp(student) > 0
    return Agreement(float(np.sqrt(np.mean((student - teacher) ** 2))), float(teacher.std()),
                     float(np.corrcoef(teacher, student)[0, 1]) if varied else None)


def together(values: Sequence[float]) -> float:
    """The root mean square of errors or deviations of several entries: that of all of them as one."""
    return float(np.sqrt(np.mean(np.square(values))))
