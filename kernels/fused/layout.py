"""How a launch's candidates lie in work items and tiles, and how many launches take them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from swg_fast.kernels.shared.sampler_table import Tree

# Candidates of a launch. Products of rows, states and sizes then stay below 2^31, so that kernels compute
# offsets in 32 bits; and Ctrl-C need not wait for more than about a second's work.
ROWS_A_LAUNCH = 2**22
MOST_LEAVES = 2**26  # of a root, whose leaves stay in one launch


class Layout(NamedTuple):
    """``items`` work items in all, of ``stride`` candidates each, which end in ``tiles`` tiles of ``tile``;
    with a tree an item is a ``group`` of roots, without one it is a tile."""

    items: int
    stride: int
    tiles: int
    tile: int
    group: int

    @property
    def phases(self) -> int:
        """Phases of an item: with a tree the roots' and one for each tile, else one."""
        return 1 + self.tiles if self.group else 1

    def slots(self, n_candidates: int) -> int:
        """The most tiles in which a state's candidates end."""
        aligned = n_candidates % self.stride == 0 or self.stride % n_candidates == 0
        items = -(-n_candidates // self.stride) if aligned else (n_candidates - 2) // self.stride + 2
        return items * self.tiles

    def mixed(self, states: int, n_candidates: int) -> bool:
        """Whether an item may hold candidates of several states."""
        return states > 1 and n_candidates % self.stride != 0


def plain_layout(rows: int, tile: int) -> Layout:
    """The layout of candidates without a tree."""
    return Layout(-(-rows // tile), stride=tile, tiles=1, tile=tile, group=0)


def tree_layout(roots: int, tree: Tree, steps: int, tile: int, resident: int) -> Layout:
    """The layout of a tree with ``roots`` of all states together whose longest program walks the fewest of
    the table's ``steps``. Large groups share a tile of roots among more leaves; small ones keep more of the
    ``resident`` tiles busy."""
    found = []
    for group in sorted({min(roots, 1 << k) for k in range(tile.bit_length())}):
        stride = group * tree.leaves
        items, tiles = -(-roots // group), -(-stride // tile)
        walked = tree.shared + (steps - tree.shared) * tiles
        found.append((-(-items // resident) * walked, items * walked,
                      Layout(items, stride, tiles, tile, group)))
    return min(found)[2]


class Part(NamedTuple):
    """What a launch takes: ``count`` candidates from ``first`` on, of each of ``states``."""

    states: slice
    first: int
    count: int


def parts(states: int, n_candidates: int, leaves: int = 1) -> Iterator[Part]:
    """The launches of a call: whole states, as many as fit in a launch; or each state in parts of whole
    roots.

    Raises `ValueError` for more leaves than a launch takes.
    """
    if leaves > MOST_LEAVES:
        raise ValueError(f"{leaves:,} leaves of a root; the fused kernels take up to {MOST_LEAVES:,}")
    most = max(ROWS_A_LAUNCH // leaves, 1) * leaves
    group = max(most // n_candidates, 1)
    group -= group % 16 if group > 16 else 0  # aligned parts of the states run one and the same kernel
    for b in range(0, states, group):
        for first in range(0, n_candidates, most):
            yield Part(slice(b, min(b + group, states)), first, min(most, n_candidates - first))
