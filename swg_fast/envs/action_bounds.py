"""The bounds of an environment's actions, and the one scaling between them and a network's [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from swg_fast.common.checks import MAX_FLOAT32, shown
from swg_fast.common.errors import UsageError

CARD = "action_bounds"  # the entry of a policy's card


@dataclass(frozen=True)
class ActionBounds:
    """The lowest and the highest action, A numbers each, in the environment's own units.

    Networks learn and draw actions u in [-1, 1]; in the environment's units these are
    low + (u + 1) / 2 (high - low). Datasets, environments and policies all scale with this class.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def unit(cls, size: int) -> ActionBounds:
        """-1 to 1 for ``size`` entries."""
        return cls((-1.0,) * size, (1.0,) * size)

    @classmethod
    def of(cls, low: Any, high: Any, source: str) -> ActionBounds:
        """Bounds from two numbers, or from arrays with a number for each entry of an action. ``source`` opens
        the message of the `UsageError` for others."""
        try:
            ends = np.broadcast_arrays(*(np.ravel(np.asarray(end, np.float64)) for end in (low, high)))
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{source}: action_low is {shown(low)} and action_high {shown(high)}; give one "
                             "number each, or one for each entry of an action") from error
        if not (np.abs(ends) <= MAX_FLOAT32).all():
            raise UsageError(f"{source}: its actions have no finite bounds; give its action space a finite "
                             "low and high (Box), or action_low and action_high")
        if not (ends[0] < ends[1]).all():
            index = int(np.argmin(ends[0] < ends[1]))
            raise UsageError(f"{source}: its action {index} goes from {ends[0][index]:g} to "
                             f"{ends[1][index]:g}; give its action space a low below the high, and leave out "
                             "what cannot move")
        return cls(*(tuple(map(float, end)) for end in ends))

    @classmethod
    def of_space(cls, space: Any, source: str) -> ActionBounds:
        """The bounds of a Gymnasium space. `UsageError`, opened by ``source``, where actions are not vectors
        of bounded real numbers."""
        from gymnasium.spaces import Box

        if not isinstance(space, Box) or space.dtype.kind != "f":
            raise UsageError(f"{source}: its actions are {space}; swg-fast acts with bounded vectors of "
                             "real numbers (Box)")
        return cls.of(space.low, space.high, source)

    @classmethod
    def from_card(cls, card: Mapping[str, Any], size: int) -> ActionBounds | None:
        """The bounds in a policy's card; None where it has none. `UsageError` for what are no bounds of
        ``size`` entries."""
        entry = card.get(CARD)
        if entry is None:
            return None
        if not isinstance(entry, Mapping) or not {"low", "high"} <= entry.keys():
            raise UsageError(f"the policy's card has {CARD} {shown(entry)}, expected low and high; copy it "
                             "again")
        source = f"the policy's card, {CARD}"
        return cls.of(entry["low"], entry["high"], source).sized(size, source)

    def sized(self, size: int, source: str) -> ActionBounds:
        """These bounds for actions of ``size`` entries; one range is every entry's. `UsageError` where they
        are for another number."""
        if len(self.low) not in (1, size):
            raise UsageError(f"{source}: bounds of {len(self.low)} entries for actions of {size}; give one "
                             "number, or one for each entry of an action")
        times = size if len(self.low) == 1 else 1
        return ActionBounds(self.low * times, self.high * times)

    def to_card(self) -> dict[str, list[float]]:
        """The entry of a policy's card."""
        return {"low": list(self.low), "high": list(self.high)}

    @property
    def is_unit(self) -> bool:
        """Whether the environment's units are the network's."""
        return self == self.unit(len(self.low))

    def to_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., A] of the environment as float32 in the network's units; what lies beyond the bounds
        lies beyond [-1, 1]."""
        if self.is_unit:
            return np.asarray(actions, np.float32)
        low, high = self._ends
        return (2.0 * (np.asarray(actions, np.float64) - low) / (high - low) - 1.0).astype(np.float32)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., A] of a network as float32 in the environment's units, never outside the bounds:
        what was beyond [-1, 1] is clipped, and rounding does not leave them."""
        if not self.is_unit:
            low, high = self._ends
            actions = low + (np.asarray(actions, np.float64) + 1.0) * 0.5 * (high - low)
        return np.clip(np.asarray(actions, np.float32), *self.inside)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.array([self.low, self.high])

    @cached_property
    def inside(self) -> np.ndarray:
        """The bounds [2, A] in float32, rounded inwards."""
        rounded = self._ends.astype(np.float32)
        beyond = np.stack([rounded[0] < self._ends[0], rounded[1] > self._ends[1]])
        inwards = np.nextafter(rounded, rounded[::-1])
        return np.where(beyond, inwards, rounded)

    def __str__(self) -> str:
        """Such as ``-2 to 2``; with more than one range, ``-1 to 1, 0 to 0.5``."""
        ranges = [f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True)]
        distinct = list(dict.fromkeys(ranges))
        return distinct[0] if len(distinct) == 1 else ", ".join(ranges[:6]) + ", ..." * (len(ranges) > 6)
