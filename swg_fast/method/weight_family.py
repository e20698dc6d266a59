"""A family of weight functions that one network serves; sampling chooses the member that guides.

A member's code, [one-hot of the function, the place of its parameter], is appended to the state, so only the
state's width changes (SWG's third open question). A parameter's place is in [-1, 1]: linear in tau,
logarithmic in alpha. Weights are divided by the data's largest weight under the member, which puts all
members' weights in [0, 1] and does not change the gradient of their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS, check_advantages, check_weight_function

FAMILY = "family"  # used where single weight functions are named
DEFAULT = "expectile:0.6:0.95,exponential:0.5:10"
GRID = 17  # places of a parameter at which a card records the mean weight


@dataclass(frozen=True)
class Member:
    """A weight function with its parameter's range, ``low`` to ``high``; None if it has no parameter."""

    name: str
    low: float | None = None
    high: float | None = None

    @property
    def parameter(self) -> str:
        return WEIGHT_FUNCTIONS[self.name].parameter

    def place(self, value: float) -> float:
        """The place in [-1, 1] of a parameter's value."""
        if self.low is None or self.high is None or self.low == self.high:
            return 0.0
        low, high, value = (self._axis(x) for x in (self.low, self.high, value))
        return min(1.0, max(-1.0, 2 * (value - low) / (high - low) - 1))

    def value(self, place: torch.Tensor) -> torch.Tensor:
        """The inverse of `place`."""
        if self.low is None or self.high is None:
            return torch.zeros_like(place)
        low, high = self._axis(self.low), self._axis(self.high)
        value = low + (high - low) * (place + 1) / 2
        return value if self.parameter == "tau" else value.exp()

    def _axis(self, value: float) -> float:
        return value if self.parameter == "tau" else math.log(value)

    def __str__(self) -> str:
        bounds = dict.fromkeys(bound for bound in (self.low, self.high) if bound is not None)
        return ":".join([self.name, *(f"{bound:g}" for bound in bounds)])


@dataclass(frozen=True)
class WeightFamily:
    """``members`` by function; ``extremes`` [E], set by `fitted`: advantages among which every member has its
    largest weight; ``means`` [K, GRID] of the members' weights, if known."""

    members: tuple[Member, ...]
    extremes: torch.Tensor | None = None
    means: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def parse(cls, text: str) -> WeightFamily:
        """A family from ``FUNCTION:LOW:HIGH,...``; FUNCTION:VALUE and FUNCTION are members without a range.

        Raises `UsageError` for another form, an unknown or repeated function, and a range that is empty or
        outside the function's.
        """
        members = []
        for part in text.split(","):
            name, *bounds = (piece.strip() for piece in part.split(":"))
            try:
                values = [float(bound) for bound in bounds]
            except ValueError:
                values = [math.nan] * 3
            if len(values) > 2:
                raise UsageError(f"weight family {shown(part)}: write a member as FUNCTION:LOW:HIGH, such as "
                                 "expectile:0.6:0.95")
            default = check_weight_function(name)
            for value in values:
                check_weight_function(name, value)
            if not values and WEIGHT_FUNCTIONS[name].parameter:
                values = [default]
            if values and values[0] > values[-1]:
                raise UsageError(f"weight family {shown(part)}: the range ends below its start; turn it "
                                 "round")
            members.append(Member(name, *((values[0], values[-1]) if values else ())))
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise UsageError(f"weight family {shown(text)}: a function comes twice; give each one range")
        return cls(tuple(members))

    @property
    def width(self) -> int:
        """Length of a code."""
        return len(self.members) + 1

    @property
    def default(self) -> str:
        """The default guidance: the first function in the middle of its range."""
        first = self.members[0]
        if first.low is None:
            return first.name
        return f"{first.name}:{float(first.value(torch.zeros((), dtype=torch.float32, device='cpu'))):.4g}"

    def __str__(self) -> str:
        return ",".join(map(str, self.members))

    def fitted(self, advantages: torch.Tensor) -> WeightFamily:
        """The family for data with these advantages [N]. Raises `UsageError` if they are not finite."""
        check_advantages(advantages)
        # Every weight function is monotone on each side of 0.
        sides = [side for side in (advantages[advantages <= 0], advantages[advantages > 0]) if len(side)]
        ends = torch.stack([end for side in sides for end in (side.min(), side.max())])
        fitted = replace(self, extremes=ends)
        grid = torch.linspace(-1, 1, GRID, dtype=torch.float32, device=advantages.device)
        means = tuple(tuple(float(fitted._weights(k, advantages, place[None]).mean()) for place in grid)
                      for k in range(len(self.members)))
        return replace(fitted, means=means)

    def draw(self, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(which function [M], place of its parameter [M]) from ``uniform`` [M, 2] in [0, 1)."""
        which = (uniform[:, 0] * len(self.members)).long().clamp(max=len(self.members) - 1)
        return which, 2 * uniform[:, 1] - 1

    def names(self, uniform: torch.Tensor) -> list[str | None]:
        """Members drawn by ``uniform`` [M, 2] in [0, 1), as `find` takes them."""
        found: list[str | None] = []
        for which, place in zip(*(part.tolist() for part in self.draw(uniform)), strict=True):
            member = self.members[which]
            value = float(member.value(torch.tensor(place, dtype=torch.float64)))
            found.append(member.name if member.low is None else
                         f"{member.name}:{min(max(value, member.low), float(member.high or value)):.12g}")
        return found

    def rows(self, advantages: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [M] of ``advantages`` [M] under members drawn by ``uniform`` [M, 2], and their codes
        [M, K + 1]."""
        which, place = self.draw(uniform)
        every = torch.stack([self._weights(k, advantages, place) for k in range(len(self.members))])
        weights = every.gather(0, which[None])[0]
        single = torch.tensor([m.low is None or m.low == m.high for m in self.members], device=which.device)
        hot = torch.nn.functional.one_hot(which, len(self.members)).to(place.dtype)
        return weights, torch.cat([hot, torch.where(single[which], 0.0, place)[:, None]], dim=1)

    def _weights(self, k: int, advantages: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Weights of ``advantages`` [M] under function ``k`` with parameters at ``place`` ([M] or [1])."""
        assert self.extremes is not None
        function, parameter = WEIGHT_FUNCTIONS[self.members[k].name].function, self.members[k].value(place)
        extremes = self.extremes.to(advantages.device)[:, None]
        return function(advantages, parameter) / function(extremes, parameter).amax(dim=0)

    def find(self, guidance: str) -> tuple[int, float]:
        """(which function, place of its parameter) of ``guidance``, such as ``expectile:0.9``.

        Raises `UsageError` for a function or a parameter that the family was not trained for.
        """
        name, value = parse_guidance("guidance", guidance)
        for k, member in enumerate(self.members):
            if member.name != name:
                continue
            if value is None:
                return k, 0.0
            if member.low is not None and member.high is not None and member.low <= value <= member.high:
                return k, member.place(value)
        raise UsageError(f"guidance {guidance!r} is not in what this policy was trained for, {self}; choose "
                         "within that, or train with another --weight-family")

    def code(self, guidance: str) -> torch.Tensor:
        """The code [K + 1] of ``guidance``. Raises `UsageError` as `find` does."""
        which, place = self.find(guidance)
        return torch.tensor([float(which == k) for k in range(len(self.members))] + [place],
                            dtype=torch.float32, device="cpu")

    def mean_weight(self, guidance: str) -> float | None:
        """The mean of the data's weights under ``guidance``; None if no card recorded it."""
        if self.means is None:
            return None
        which, place = self.find(guidance)
        at = (place + 1) / 2 * (GRID - 1)
        low = min(int(at), GRID - 2)
        row = self.means[which]
        return row[low] + (at - low) * (row[low + 1] - row[low])

    def to_card(self) -> dict[str, Any]:
        """The family's entry in a model card."""
        return {"functions": str(self), "code": [*(m.name for m in self.members), "place of the parameter"],
                "mean_weights": [[round(x, 6) for x in row] for row in self.means or ()]}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> WeightFamily | None:
        """The family of a policy from its card; None if one weight function trained it.

        Raises `UsageError` for an invalid entry.
        """
        entry = card.get("weight_family")
        if entry is None:
            return None
        try:
            family = cls.parse(entry["functions"])
            means = tuple(tuple(float(x) for x in row) for row in entry["mean_weights"]) or None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"weight_family of the card is no family ({error}); copy the checkpoint "
                             "again") from error
        if means and (len(means) != len(family.members) or any(len(row) != GRID for row in means)):
            raise UsageError(f"weight_family of the card has no {GRID} mean weights for each function; copy "
                             "the checkpoint again")
        return replace(family, means=means)


def parse_guidance(name: str, value: Any) -> tuple[str, float | None]:
    """(function, parameter) of ``value``: ``"expectile:0.9"``, ``("expectile", 0.9)`` or ``"dice"``.

    Raises `UsageError`, with ``name``, for anything else, and for a parameter outside the function's range.
    """
    parts = value.split(":") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2) or not isinstance(parts[0], str):
        raise UsageError(f"{name} must be FUNCTION:PARAMETER, such as expectile:0.9, got {shown(value)}")
    function, *given = parts
    try:
        parameter = float(given[0]) if given else None
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be FUNCTION:PARAMETER, such as expectile:0.9, got "
                         f"{shown(value)}") from None
    used = check_weight_function(function.strip(), parameter)
    return function.strip(), used if WEIGHT_FUNCTIONS[function.strip()].parameter else None


def guidance_text(name: str, value: Any) -> str:
    """``value`` in a plain text form that `parse_guidance` accepts."""
    function, parameter = parse_guidance(name, value)
    return function if parameter is None else f"{function}:{parameter:.12g}"
