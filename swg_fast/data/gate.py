"""The checks that every dataset passes before its arrays are read, whatever its format: of types, and of
sizes against the file and the memory. `transitions.check_values` then looks at the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import check_memory

SMALL = 2**24  # bytes; a smaller array may be declared in a file of any size
DENSEST = 1100  # deflate packs at most 1032 bytes into one
COPIES = 4  # of the arrays, while transitions are made of them


@dataclass(frozen=True)
class Declared:
    """An array as its file declares it. ``stored`` are its bytes there, perhaps ``packed``; the shape is None
    for an empty space."""

    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    stored: int
    packed: bool

    @property
    def size(self) -> int:
        """Bytes of the whole array in memory, as a Python integer, which does not overflow."""
        total = int(self.dtype.itemsize)
        for length in self.shape or ():
            total *= int(length)
        return total


def check_sizes(arrays: Mapping[str, Declared], file: Path, source: str) -> None:
    """`UsageError` where an array is larger than its stored bytes can be, or all are more than the memory."""
    there = file.stat().st_size
    for key, array in arrays.items():
        most = array.stored * (DENSEST if array.packed else 1)
        if array.size > max(most, SMALL) or array.stored > there:
            raise UsageError(f"{source}: {key!r} is declared with shape {list(array.shape or ())}, "
                             f"{array.size:,} bytes, and {array.stored:,} are stored; the file is "
                             "incomplete, write it again")
    check_fits(sum(array.size for array in arrays.values()), source)


def check_fits(size: int, source: str) -> None:
    """`UsageError` where arrays of ``size`` bytes are more than the memory."""
    check_memory(COPIES * size, source, "use a smaller dataset or a larger machine")


def check_real(array: Any, key: str, source: str, kinds: str = "f") -> None:
    """`UsageError` where the type of ``array``, or of what a file declares, is none of ``kinds``, NumPy's
    letters."""
    if array.dtype.kind not in kinds:
        raise UsageError(f"{source}: {key!r} has dtype {array.dtype}, expected "
                         f"{'floating point' if kinds == 'f' else 'real numbers'}; convert it when saving")
