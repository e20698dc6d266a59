"""The parts of a policy, listed once for checkpoints, backends and the policy itself."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from swg_fast.common.errors import UsageError
from swg_fast.method.networks import Ranker, ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.surroundings import own_surroundings

# The networks by the names of their fields in `Model`. A new part has its line here and its field there.
NETWORKS: dict[str, type[nn.Module]] = {
    "network": ScoreNetwork, "critic": TwinQ, "value": ValueNetwork, "ranker": Ranker}


@dataclass(frozen=True)
class Model:
    """A score network, its schedule, and what may stand beside them.

    critic: for ``select="max_q"``. value: V of the critic's training. ranker: regresses E[w | s, a].
    card: free JSON that travels along: data, settings, scores; ``card["sampling"]`` has the policy's own
    sampling settings, all of them once it is saved.
    """

    network: ScoreNetwork
    schedule: NoiseSchedule
    critic: TwinQ | None = None
    value: ValueNetwork | None = None
    card: dict[str, Any] = field(default_factory=dict)
    ranker: Ranker | None = None

    def networks(self) -> Iterator[tuple[str, Any]]:
        """(name, module) of every network that is there."""
        for name in NETWORKS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def copied(self, device: torch.device | None = None) -> Model:
        """The same parts with networks of their own to sample with, on ``device`` (None: where they are): in
        float32, evaluating, without gradients. The ones that were given stay as they are."""
        with own_surroundings():
            own = {name: copy.deepcopy(module) for name, module in self.networks()}
            return replace(self, **{
                name: module.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
                for name, module in own.items()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What was copied or unpickled, as it would be in any surroundings."""
        vars(self).update(state)
        vars(self).update(vars(self.copied()))

    def with_card(self, **entries: Any) -> Model:
        """The same parts with more in the card."""
        return replace(self, card=self.card | entries)

    def parts(self) -> dict[str, Any]:
        """Every part by name: keywords that make this model again."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def family(self) -> WeightFamily | None:
        """The family of weight functions that the network was trained with; None for one function."""
        return WeightFamily.from_card(self.card)


def check_fit(networks: Iterable[tuple[str, Any]], code: int) -> None:
    """`UsageError` where the networks, by name and the score network first, are for other states or actions.
    That one alone sees a weight function's code, of ``code`` entries, beside the state."""
    (_, first), *others = networks
    states, actions = first.state_dim - code, first.action_dim
    for name, part in others:
        theirs = part.state_dim, getattr(part, "action_dim", actions)  # V has no action
        if theirs != (states, actions):
            raise UsageError(f"the {name} is for states of {theirs[0]} and actions of {theirs[1]}, the "
                             f"network for {states} and {actions}; they are from different tasks")
