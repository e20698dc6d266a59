"""Ant Maze by place: means on a grid, and distances to the goal along recorded steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swg_fast.data import Transitions

BIN = 0.5  # metres: an ant walks about that far in a step or two
FEWEST = 5  # states that a bin needs to have a mean


@dataclass(frozen=True)
class Grid:
    """Square bins over the positions of a dataset, ``shape`` [rows (y), columns (x)].

    ``at`` and ``after`` [N] are the bins of each transition's state and next state, flat; ``low`` [2] the
    lower left corner in metres.
    """

    low: np.ndarray
    shape: tuple[int, int]
    at: np.ndarray
    after: np.ndarray

    @property
    def moved(self) -> np.ndarray:
        """[N], whether a transition leads to another bin. An ant that is stuck or lies on its back stays in
        one bin for hundreds of steps, which would outweigh the others."""
        return self.at != self.after

    @property
    def count(self) -> np.ndarray:
        """How many states lie in each bin, [bins]."""
        return np.bincount(self.at, minlength=self.shape[0] * self.shape[1])

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """For imshow: left, right, bottom, top in metres."""
        x, y = self.low
        return x, x + self.shape[1] * BIN, y, y + self.shape[0] * BIN

    def centres(self) -> np.ndarray:
        """[bins, 2] in metres."""
        rows, columns = np.divmod(np.arange(self.shape[0] * self.shape[1]), self.shape[1])
        return self.low + BIN * (np.stack([columns, rows], axis=1) + 0.5)

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Mean of ``values`` [N] (of those ``where`` [N] is true) in each bin, [bins]; NaN where there are
        fewer than `FEWEST`."""
        where = np.ones(len(values), bool) if where is None else where
        bins = self.shape[0] * self.shape[1]
        sums = np.bincount(self.at[where], values[where], minlength=bins)
        count = np.bincount(self.at[where], minlength=bins)
        return np.where(count >= FEWEST, sums / np.maximum(count, 1), np.nan)


def make_grid(data: Transitions) -> Grid:
    """The grid that holds every state and next state; a position is the first two entries."""
    both = np.concatenate([data.observations[:, :2], data.next_observations[:, :2]])
    low = np.floor(both.min(axis=0) / BIN) * BIN
    columns, rows = (np.floor((both.max(axis=0) - low) / BIN).astype(int) + 1).tolist()
    bins = np.floor((both - low) / BIN).astype(int)
    flat = bins[:, 1] * columns + bins[:, 0]
    return Grid(low, (rows, columns), flat[:len(data)], flat[len(data):])


@dataclass(frozen=True)
class Way:
    """The way to the goal along recorded steps: ``metres`` [bins] to it, inf where no step leads there;
    ``towards`` [bins], the next bin, negative where there is none; ``goal`` [2], the mean place of reward."""

    metres: np.ndarray
    towards: np.ndarray
    goal: np.ndarray


def way_to_the_goal(grid: Grid, data: Transitions) -> Way | None:
    """Shortest ways over the graph of recorded steps from bin to bin; None where no step is rewarded."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    rewarded = data.rewards > 0
    if not rewarded.any():
        return None
    start, end = np.unique(np.stack([grid.at[grid.moved], grid.after[grid.moved]]), axis=1)
    centres = grid.centres()
    length = np.linalg.norm(centres[start] - centres[end], axis=1)
    backwards = coo_array((length, (end, start)), shape=(len(centres),) * 2).tocsr()
    metres, towards, _ = dijkstra(backwards, indices=np.unique(grid.after[rewarded]), min_only=True,
                                  return_predecessors=True)
    return Way(metres, towards, data.next_observations[rewarded, :2].mean(axis=0))


def way_in(data: Transitions) -> tuple[Way | None, Grid]:
    """The way to the goal, and the grid that it lies on."""
    grid = make_grid(data)
    return way_to_the_goal(grid, data), grid


def way_figures(way: Way, value: np.ndarray) -> dict[str, float | None]:
    """How well mean values [bins] show the way; names that end in ``_far`` are of the farthest half.

    joined: the share of places from which recorded steps lead to the goal; rank_correlation: Spearman's, of
    value and nearness; uphill: the share of places whose next place on the way has a higher value, 0.5 by
    chance. None where there are too few places.
    """
    from scipy.stats import spearmanr

    shown = np.isfinite(value)
    joined = shown & np.isfinite(way.metres)
    count = int(shown.sum())
    figures: dict[str, float | None] = {"places": count, "joined": float(joined.sum() / max(count, 1))}
    farthest = np.median(way.metres[joined]) if joined.any() else np.inf
    for name, where in (("", joined), ("_far", joined & (way.metres > farthest))):
        onward = where & (way.towards >= 0)
        onward[onward] &= np.isfinite(value[way.towards[onward]])
        varied = where.any() and np.ptp(value[where]) > 0 and np.ptp(way.metres[where]) > 0
        figures[f"rank_correlation{name}"] = float(
            spearmanr(value[where], -way.metres[where]).statistic) if varied else None
        figures[f"uphill{name}"] = float(
            (value[way.towards[onward]] > value[onward]).mean()) if onward.any() else None
    return figures | {"farthest_metres": float(way.metres[joined].max()) if joined.any() else None}
