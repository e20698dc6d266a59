"""What a sample does not depend on: the settings of the thread and of the process that draw it.

torch's default dtype belongs to all threads of a process and is left alone: every tensor that is made here
and in `kernels` has its dtype given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TINY = 5e-324  # equals 0 for a thread that flushes denormal numbers
CASTING = ("cpu", "cuda")  # kinds of devices with an autocast of their own
# Where torch keeps the precision of float32 products; before 2.9 there is one for all.
PRODUCTS: list[Any] = [
    place for place in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    if hasattr(place, "fp32_precision")]
EXACT = ["ieee"] * len(PRODUCTS) or ["highest"]


def _precisions() -> list[str]:
    return [place.fp32_precision for place in PRODUCTS] or [torch.get_float32_matmul_precision()]


def _set_precisions(values: list[str]) -> None:
    for place, value in zip(PRODUCTS, values, strict=False):
        place.fp32_precision = value
    if not PRODUCTS:
        torch.set_float32_matmul_precision(values[0])


class _Products:
    """float32 products in float32 while any thread is inside. Their precision belongs to all threads: the
    first to come sets it, the last to leave puts it back."""

    def __init__(self) -> None:
        self.lock, self.inside, self.used = threading.Lock(), 0, False
        self.before: list[str] = []

    def are_exact(self) -> bool:
        return not self.inside and all(found in ("none", *EXACT) for found in _precisions())

    @contextmanager
    def exact(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.before = _precisions()
                _set_precisions(EXACT)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    _set_precisions(self.before)


_products = _Products()


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Without gradients, inference mode, autocast, a default device, denormal numbers flushed to zero, and
    products below float32; the caller's settings are back afterwards. It may be entered again inside."""
    _products.used = True
    flushes = TINY == 0.0
    casting = [kind for kind in CASTING if torch.is_autocast_enabled(kind)]
    exact = _products.are_exact()
    for kind in casting:
        torch.set_autocast_enabled(kind, False)
    if flushes:
        torch.set_flush_denormal(False)
    try:
        with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
            if exact:
                yield
            else:
                with _products.exact():
                    yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)
        for kind in casting:
            torch.set_autocast_enabled(kind, True)


def _work_alone() -> None:
    """In a forked child: it has none of torch's threads and would wait for them for ever, and nobody leaves
    what another thread had entered."""
    if _products.used:
        torch.set_num_threads(1)
        if _products.inside:
            _set_precisions(_products.before)
        _products.lock, _products.inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_work_alone)
