"""Independent streams of random numbers from one seed, and the caller's global ones left alone."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.random import mtrand


def stream_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one named stream of a run, the same on every machine."""
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BorrowedRandom:
    """Stands in for NumPy's global generator while code runs that seeds and draws from it, so that the
    caller's stays as it was."""

    def __init__(self) -> None:
        self._bits, self._gauss = np.random.MT19937(), _Gauss(0, 0.0)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """For the block, NumPy's global generator is this one, in the state that the last block left."""
        theirs, their_gauss = mtrand.get_bit_generator(), _Gauss.now()
        mtrand.set_bit_generator(self._bits)
        self._gauss.restore()
        try:
            yield
        finally:
            self._gauss = _Gauss.now()
            mtrand.set_bit_generator(theirs)
            their_gauss.restore()


class _Gauss(NamedTuple):
    """The second of two normal numbers, which a generator drops when its bits are exchanged."""

    has: int
    value: float

    @classmethod
    def now(cls) -> _Gauss:
        state = np.random.get_state(legacy=False)
        return cls(state["has_gauss"], state["gauss"])

    def restore(self) -> None:
        if self.has:
            np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 1, "gauss": self.value})


@contextmanager
def random_kept() -> Iterator[None]:
    """Restores the global generators of Python and of PyTorch, where that is loaded, after the block."""
    torch = sys.modules.get("torch")
    ours, torchs = random.getstate(), torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(ours)
        if torch:
            torch.set_rng_state(torchs)
