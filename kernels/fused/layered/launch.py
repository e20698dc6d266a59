"""Launches the layered kernels. The second decision of a shape captures the launches as a CUDA graph; later
decisions copy their inputs to the captured memory."""

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
from swg_fast.kernels.shared.sampler_table import SamplerTable

KEPT = 8  # plans of a network: the most recently used

_turn = threading.Lock()  # held from writing a decision's inputs to copying its results


class Decisions:
    """A plan that runs launch by launch the first time, and as a graph from the second time on."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.once = self._first

    def _first(self) -> None:
        self.plan.launches()
        self.once = self._second if replays(self.plan.h.device) else self.plan.launches

    def _second(self) -> None:
        self.once = capture(self.plan.launches)
        self.once()

    def run(self, vectors: torch.Tensor, state_words: torch.Tensor, seed: int, first: int) -> Drawn:
        """The results, in memory that no later run overwrites."""
        plan = self.plan
        plan.words[0].fill_(seed - (1 << 64) if seed >= 1 << 63 else seed)
        plan.words[1].fill_(first)
        plan.vectors.copy_(vectors)
        plan.state_words.copy_(state_words)
        self.once()
        every = plan.every if plan.asked.return_candidates else ()
        return Drawn(*(part.clone() for part in (*plan.kept, *every)))


def replays(device: torch.device) -> bool:
    """Whether launches on this device are captured."""
    return device.type == "cuda"


def sample(network: Any, table: SamplerTable, state_vectors: torch.Tensor, state_words: torch.Tensor,
           asked: Asked, new: Callable[..., torch.Tensor]) -> Drawn:
    """`kernels.fused.launch.sample` without a tree or a ranking. A network keeps its most recently used
    plans, each for one stream; ``new`` allocates memory for kernels to write."""
    device = state_vectors.device
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    seed, first = asked.seed, asked.first
    asked = replace(asked, seed=0, first=0)  # one plan serves all seeds and all parts
    key = (id(table), len(state_vectors), asked, stream)  # a plan holds its table, so the id stays unique
    with _turn:
        plans: OrderedDict[Any, Decisions] = network.plans
        if key not in plans:
            with torch.inference_mode(False):  # a later call outside that mode writes to it
                plans[key] = Decisions(Plan(network, table, len(state_vectors), asked, new))
        plans.move_to_end(key)
        if len(plans) > KEPT:
            plans.popitem(last=False)
        return plans[key].run(state_vectors, state_words, seed, first)
