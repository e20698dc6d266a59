"""The backends and types that `swg-fast bench` finds on a machine."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from conftest import make_network

from swg_fast.common.errors import UsageError
from swg_fast.evaluation.bench import contenders, run, worker
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import StudentWalk
from swg_fast.policy.policy import Policy


@pytest.mark.parametrize("native", [False, True])
def test_bf16_only_where_the_processor_has_it(monkeypatch, native):
    monkeypatch.setattr(contenders, "has_native_bf16", lambda: native)
    policy = Policy(make_network(3, 2), NoiseSchedule.vp(5))

    def kinds(dtypes):
        return [found.dtype for found in contenders.find(policy, ["torch", "compile"], dtypes, None)]

    assert kinds(["fp32"]) == ["fp32", "fp32"]
    assert kinds(None) == (["fp32", "bf16"] * 2 if native else ["fp32", "fp32"])
    if native:
        assert kinds(["bf16"]) == ["bf16", "bf16"]
    else:
        with pytest.raises(UsageError, match="no native bf16.*use --dtypes fp32"):
            kinds(["bf16"])


@pytest.fixture
def alone():
    """A student alone of two calls, for guidance scales from 0 to 2, in one entry beside the state."""
    walk = StudentWalk("", "dpmpp_2m", 5, (0.0, 2.0), (2, 4), (1e-3, 2.0), "exact", True)
    own = {"sampler": "student", "weight_clip": [1e-3, 2.0], "temperature": 1.0}
    return Policy(make_network(4, 2, hidden_dim=16), NoiseSchedule.vp(5),
                  card={"distilled": {"walk": asdict(walk)}, "sampling": own})


def test_a_worker_makes_the_decisions_of_a_student_alone(alone):
    """The scale, here 0.5, stands among its inputs."""
    parts = worker.model_parts(alone, 0.5)
    states = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([states, alone.model.walk.code(0.5).expand(3, -1)], dim=1).numpy()
    mine = alone.sample(states, n_candidates=8, guidance_scale=0.5, seed=4, dtype="fp32")
    for name in ("reference", "torch"):
        decide = worker._decision(contenders.Contender(name, "fp32"), parts, alone.device)
        torch.testing.assert_close(decide(inputs, 8, 4).actions, mine.actions, atol=1e-5, rtol=1e-5)


def test_a_student_alone_has_no_peers(alone):
    found = contenders.find(alone, ["all"], ["fp32"], None)
    assert {"reference", "torch"} <= {one.name for one in found} and not {"compile"} & {
        one.name for one in found}
    with pytest.raises(UsageError, match="peer 'compile' walks a diffusion"):
        contenders.find(alone, ["compile"], None, None)
    with pytest.raises(UsageError, match="has learnt guidance_scale=0 to 2"):
        run.run_bench(alone, candidates=[4], n_states=[1], backends=["torch"], dtypes=None,
                      guidance_scale=3.0)


@pytest.mark.slow
def test_what_is_measured_of_a_student(alone, monkeypatch):
    """Of one alone its two calls, at the middle of its scales; of one beside its teacher the teacher."""
    monkeypatch.setattr(run, "TURN_SECONDS", 1e-3)
    teacher = make_network(3, 2, hidden_dim=16)
    both = Policy(teacher, alone.model.schedule, student=alone.model.network, card=alone.card)
    small = {"candidates": [4], "n_states": [2], "backends": ["torch"], "dtypes": ["fp32"], "repeats": 1,
             "max_seconds": 600.0, "progress": False}
    found, theirs = run.run_bench(alone, **small), run.run_bench(both, **small)
    assert (found.num_steps, found.guidance_scale, len(found.results)) == (2, 1.0, 1)
    assert (theirs.num_steps, theirs.guidance_scale, len(theirs.results)) == (5, 5.0, 1)
    each = [one.results[0].gflops / one.results[0].candidates_per_second for one in (found, theirs)]
    assert 2 * each[0] < each[1]  # a candidate's arithmetic: two passes, and five with a way back
