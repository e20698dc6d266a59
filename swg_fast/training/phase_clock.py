"""Where a phase's time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRAINING = ("steps", "random numbers")  # the other parts are overhead


class Clock:
    """Seconds by part of a phase. With ``wait`` each part waits for the device at its end, so that work
    counts for the part that started it."""

    def __init__(self, device: torch.device, wait: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._wait = wait and device.type == "cuda"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._wait:
                torch.cuda.synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def rows(self, phase: str) -> list[tuple[str, str]]:
        """The phase's parts for a table, the costliest first, and the share beside the training."""
        total = sum(self.seconds.values())
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        rows = [(f"{phase}: {name}", f"{seconds:.2f} s  {seconds / total:.1%}") for name, seconds in parts]
        return [*rows, (f"{phase}: all but {' and '.join(TRAINING)}", f"{self.overhead():.1%}")]

    def overhead(self) -> float:
        """The share of the time that neither the steps nor their random numbers took."""
        total = sum(self.seconds.values())
        return sum(s for name, s in self.seconds.items() if name not in TRAINING) / total
