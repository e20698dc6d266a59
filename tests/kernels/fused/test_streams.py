"""Decisions from several streams and threads at once, with stand-ins for streams and kernels: what they share
and what they do not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from conftest import DEVICE, ddpm, make_network

from swg_fast import NoiseSchedule
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.fused.hopper import launch as hopper_launch
from swg_fast.kernels.fused.layered import launch as layered_launch
from swg_fast.kernels.fused.layered.plan import Plan
from swg_fast.kernels.shared.packing import pack

pytestmark = pytest.mark.skipif(DEVICE.type == "cuda", reason="stand-ins take the place of a GPU")

SMALL = Config(16, 128, 4, 2, kind="layers")
THREADS, EACH = 4, 30


@pytest.fixture
def problem(monkeypatch):
    """A network and a table. A decision's work takes time, and keeps its seed and the sum of its state."""
    def work(plan):
        plan.bring()
        actions, weights, indices = plan.kept
        time.sleep(1e-4)  # another thread's turn
        actions.fill_(0.0)
        indices.copy_(plan.words[:1].expand_as(indices))
        time.sleep(1e-4)
        weights.copy_(plan.states.sum(dim=1))
        plan.judge()

    monkeypatch.setattr(Plan, "launches", work)
    network = make_network(5, 3, 64, 2).to(DEVICE)
    fused = launch.KernelNetwork.lay_out(pack(network, 2, torch.float32, DEVICE), "fp32")
    return fused, ddpm(NoiseSchedule.vp(2), 1.0, 1.0)


def decide(problem, number):
    """Whether a decision gave what is its own."""
    fused, table = problem
    state = torch.full((1, 5), float(number), device=DEVICE)
    drawn = launch.sample(fused, table, state, torch.tensor([number], device=DEVICE),
                          launch.Asked(3, number, config=SMALL))
    return (int(drawn.indices), float(drawn.weights)) == (number, 5.0 * number) and drawn.finite


def together(problem):
    """How many decisions of several threads gave what is another's."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda number: decide(problem, number), range(THREADS * EACH))).count(False)


@pytest.mark.slow
def test_threads_of_one_stream_take_turns(problem):
    assert decide(problem, 7)
    assert together(problem) == 0 and len(problem[0].plans) == 1


@pytest.mark.slow
def test_without_turns_they_would_not(problem):
    """The check above can fail."""
    assert decide(problem, 7)
    [plan] = problem[0].plans.values()
    plan._turn = nullcontext()
    assert together(problem) > 0


@pytest.mark.slow
def test_streams_share_no_memory(problem, monkeypatch):
    """Each has a plan of its own, whose memory no other plan has, and none waits for another's turn."""
    monkeypatch.setattr(layered_launch, "stream_of", lambda device: threading.get_ident())
    assert together(problem) == 0
    plans = [decisions.plan for decisions in problem[0].plans.values()]
    assert len(plans) > 1
    places = [{part.data_ptr() for part in vars(plan).values() if torch.is_tensor(part) and part.numel()}
              | {plan.results.memory.data_ptr()} for plan in plans]
    assert all(not (one & other) for i, one in enumerate(places) for other in places[i + 1:])
    assert len({id(decisions._turn) for decisions in problem[0].plans.values()}) == len(plans)


def test_scratch_is_new_for_each_launch(problem):
    """So that launches on two streams never have the same; the allocator knows each one's stream."""
    parts = [problem[0].scratch(2, Config(16, 64, 4, 1), True) for _ in range(2)]
    assert len({part.data_ptr() for pair in parts for part in pair}) == 4


def test_maps_of_the_weights_are_waited_for_before_others_find_them(problem, monkeypatch):
    """Another thread takes them from ``streamed`` and may read them on its own stream."""
    fused, found = problem[0], []
    monkeypatch.setattr(hopper_launch, "arguments", lambda network, config: ("maps",))
    monkeypatch.setattr(hopper_launch, "settle", lambda device: found.append(dict(fused.streamed)))
    monkeypatch.setattr(hopper_launch, "constants", lambda network, config: {})

    class Kernel:
        def __getitem__(self, grid):
            return lambda *given, **more: found.append(given)

    monkeypatch.setattr(hopper_launch, "kernel", Kernel)
    for _ in range(2):
        hopper_launch.run(1, fused, Config(64, 64, 4, 3, kind="gluon"), ())
    assert found == [{}, ("maps",), ("maps",)]
