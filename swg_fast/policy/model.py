"""The parts of a policy, listed once for checkpoints, backends and the policy itself."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from swg_fast.common.errors import UsageError, reason
from swg_fast.method.networks import EnsembleQ, Ranker, ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import ENTRY, StudentWalk
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.surroundings import own_surroundings

# The networks by the names of their fields in `Model`. A new part has its line here and its field there.
NETWORKS: dict[str, type[nn.Module]] = {
    "network": ScoreNetwork, "critic": TwinQ, "value": ValueNetwork, "ranker": Ranker,
    "student": ScoreNetwork, "critics": EnsembleQ}


@dataclass(frozen=True)
class Model:
    """A score network, its schedule, and what may stand beside them.

    student: draws a candidate in a call or few (`method.student`), beside its teacher. A model whose card
    records a student and which has none beside it is a student alone: ``network`` is the student.
    critic: for ``select="max_q"``. value: V of the critic's training. ranker: regresses E[w | s, a].
    critics: an ensemble's Q, for ``select="lcb_q"``.
    card: free JSON that travels along: data, settings, scores; ``card["sampling"]`` has the policy's own
    sampling settings, all of them once it is saved.
    """

    network: ScoreNetwork
    schedule: NoiseSchedule
    critic: TwinQ | None = None
    value: ValueNetwork | None = None
    card: dict[str, Any] = field(default_factory=dict)
    ranker: Ranker | None = None
    student: ScoreNetwork | None = None
    critics: EnsembleQ | None = None

    def networks(self) -> Iterator[tuple[str, Any]]:
        """(name, module) of every network that is there."""
        for name in NETWORKS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def copied(self, device: torch.device | None = None) -> Model:
        """The same parts with networks of their own to sample with, on ``device`` (None: where they are): in
        float32, evaluating, without gradients. The ones that were given stay as they are."""
        with own_surroundings():
            own = {name: _copy(name, module) for name, module in self.networks()}
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

    @property
    def state_dim(self) -> int:
        """Entries of a state, without those of a code that stands beside it."""
        return self.network.state_dim - self.code_widths["network"]

    def parts(self) -> dict[str, Any]:
        """Every part by name: keywords that make this model again."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def walk(self) -> StudentWalk | None:
        """What the student has learnt; None without one."""
        return StudentWalk.from_card(self.card)

    @property
    def has_diffusion(self) -> bool:
        """Whether ``network`` is a diffusion, which walks; else it is a student."""
        return self.walk is None or self.student is not None

    def as_student(self) -> Model:
        """The model whose ``network`` is the student."""
        return self if self.student is None else replace(self, network=self.student, student=None)

    @property
    def code_widths(self) -> dict[str, int]:
        """How many entries stand beside the state for what is chosen at sampling, of each score network."""
        return code_widths(self.card, self.student is not None)

    @property
    def family(self) -> WeightFamily | None:
        """The family of weight functions that the network was trained with; None for one function."""
        return WeightFamily.from_card(self.card)


def _copy(name: str, module: nn.Module) -> Any:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # of whatever somebody has hung onto it: a lock, a tensor with a gradient
        raise UsageError(f"the {name} cannot be copied ({reason(error)}); take off what was added to it"
                         ) from error


def code_widths(card: Mapping[str, Any], beside: bool) -> dict[str, int]:
    """`Model.code_widths` of a model with this ``card``; a student, if any, stands ``beside`` its teacher or
    alone. `UsageError` where the card's family or student makes no sense."""
    family, walk = WeightFamily.from_card(card), StudentWalk.from_card(card)
    if beside and walk is None:
        raise UsageError(f"a student is there, and the card does not say under {ENTRY!r} what it has learnt; "
                         "keep the card that 'swg-fast distill' wrote")
    own = family.width if family is not None else 0
    student = own + (walk.width if walk is not None else 0)
    return {"network": own if beside or walk is None else student, "student": student}


def check_fit(networks: Iterable[tuple[str, Any]], codes: Mapping[str, int]) -> None:
    """`UsageError` where the networks, by name and the score network first, are for other states or actions.
    ``codes`` tells how many entries a network sees beside the state, if any."""
    (name, first), *others = networks
    states, actions = first.state_dim - codes.get(name, 0), first.action_dim
    for name, part in others:
        # V has no action
        theirs = part.state_dim - codes.get(name, 0), getattr(part, "action_dim", actions)
        if theirs != (states, actions):
            raise UsageError(f"the {name} is for states of {theirs[0]} and actions of {theirs[1]}, the "
                             f"network for {states} and {actions}; they are from different tasks")
