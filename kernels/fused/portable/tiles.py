"""Which candidates a tile holds, for Triton and for Gluon.

A launch's rows are the candidates of all its states, one state after another: row r is candidate r % N of
state r // N. A tile takes rows in this order, so all its lanes work however many states and candidates there
are. With ``MIXED`` false every tile holds rows of one state only, and what belongs to the state is read once.

A tree's work item is ``group`` roots of ``leaves`` leaves, in phases (`phases`): a tile of roots, then tiles
of leaves. Without a tree an item is a tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Tile(NamedTuple):
    """Lane l has row start + l step, as long as l is below ``count``; further lanes repeat the last row. A
    tile beyond the last row has a ``count`` of 0 or less."""

    start: Any
    step: Any
    count: Any


@triton.jit
def tile_of(item, phase, group, leaves, total, BM: tl.constexpr, TREE: tl.constexpr):
    """The tile of a work item's phase among ``total`` rows. The roots' rows are their first leaves'."""
    start = item * BM
    step = 1
    count = tl.minimum(total - start, BM)
    if TREE:
        first = item * group * leaves
        end = tl.minimum(first + group * leaves, total)
        start = tl.where(phase == 0, first, first + (phase - 1) * BM)
        step = tl.where(phase == 0, leaves, 1)
        count = tl.where(phase == 0, (end - first) // leaves, tl.minimum(end - start, BM))
        start = tl.minimum(start, end - 1)
    return Tile(start, step, count)


@triton.jit
def rows_of(lanes, tile):
    """The rows of a tile's ``lanes``."""
    return tile.start + tl.maximum(tl.minimum(lanes, tile.count - 1), 0) * tile.step


@triton.jit
def owner_of(rows, tile, N, MIXED: tl.constexpr):
    """The state of each of the tile's ``rows``; one for all unless MIXED."""
    return (rows if MIXED else tile.start) // N


@triton.jit
def noise_words(lanes, tile, N, first, state_words, MIXED: tl.constexpr):
    """(candidate words of ``lanes`` [BM], state words [BM, 1]; one state word unless MIXED) of the noise.
    Candidate words count from ``first`` and wrap at 2^32."""
    rows = rows_of(lanes, tile)
    owner = owner_of(rows, tile, N, MIXED)
    state = tl.load(state_words + owner).to(tl.uint32)
    if MIXED:
        state = state[:, None]
    return first.to(tl.uint32) + (rows - owner * N).to(tl.uint32), state


@triton.jit
def number_of(row, stride, tiles, BM: tl.constexpr):
    """The number of the tile that finishes a row: items have ``stride`` rows in ``tiles`` tiles."""
    return row // stride * tiles + row % stride // BM


@triton.jit
def place_of(owner, number, N, slots, stride, tiles, BM: tl.constexpr):
    """Where tile ``number`` leaves its best candidate of state ``owner``: each state has ``slots`` places."""
    return owner * slots + number - number_of(owner * N, stride, tiles, BM)
