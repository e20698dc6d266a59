"""Launches the layered kernels. The second decision of a shape captures all its work as a CUDA graph, from
the states to whether the results are finite. A later one takes a copy of the states, the graph, a copy of the
results and one wait."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from swg_fast.kernels.fused.layered.plan import Plan
from swg_fast.kernels.fused.records import Asked, Drawn
from swg_fast.kernels.shared.cuda_graph import capture
from swg_fast.kernels.shared.devices import counted, settle, stream_of
from swg_fast.kernels.shared.sampler_table import SamplerTable

KEPT = 8  # plans of a network: the most recently used

_choosing = threading.Lock()  # held while a network's plans change


class Decisions:
    """A plan that runs launch by launch the first time, and as a graph from the second time on."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.once = self._first
        self._turn = threading.Lock()  # held from writing a decision's inputs to the end of its work
        self._words: torch.Tensor | None = None  # the shared 0 .. B - 1, while the plan's words are these

    def _first(self) -> None:
        self.plan.launches()
        self.once = self._second if replays(self.plan.h.device) else self.plan.launches

    def _second(self) -> None:
        self.once = capture(self.plan.launches)
        self.once()

    def run(self, states: torch.Tensor, state_words: torch.Tensor, seed: int, first: int) -> Drawn:
        """The results, finished, in memory that no later run overwrites."""
        plan, device = self.plan, self.plan.states.device
        with self._turn:
            plan.numbers[0] = seed - (1 << 64) if seed >= 1 << 63 else seed
            plan.numbers[1] = first
            plan.states.copy_(states)
            if state_words is not self._words:
                plan.state_words.copy_(state_words)
                self._words = state_words if state_words is counted(device, plan.count) else None
            self.once()
            taken = plan.results.of(plan.results.memory.clone())
            settle(device)
            return Drawn(*taken, finite=bool(plan.sound))


def replays(device: torch.device) -> bool:
    """Whether launches on this device are captured."""
    return device.type == "cuda"


def sample(network: Any, table: SamplerTable, states: torch.Tensor, state_words: torch.Tensor,
           asked: Asked, new: Callable[..., torch.Tensor]) -> Drawn:
    """`kernels.fused.launch.sample` without a tree or a ranking. A network keeps its most recently used
    plans, each for one stream, so that decisions on two streams share no memory; ``new`` allocates memory for
    kernels to write."""
    device = states.device
    seed, first = asked.seed, asked.first
    asked = replace(asked, seed=0, first=0)  # one plan serves all seeds and all parts
    key = (id(table), len(states), asked, stream_of(device))  # a plan holds its table, so the id stays unique
    with _choosing:
        plans: OrderedDict[Any, Decisions] = network.plans
        if key not in plans:
            with torch.inference_mode(False):  # a later call outside that mode writes to it
                plans[key] = Decisions(Plan(network, table, len(states), asked, new))
        plans.move_to_end(key)
        if len(plans) > KEPT:
            plans.popitem(last=False)
        decisions = plans[key]
    return decisions.run(states, state_words, seed, first)
