"""pytest-benchmark suites: `make bench`, or with --benchmark-compare against a stored run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.pack import pack
from swg_fast.data.transitions import to_transitions
from swg_fast.envs import make_env
from swg_fast.policy import load_policy
from swg_fast.schedule import NoiseSchedule
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.settings import TrainSettings

TASK = "antmaze-umaze-v2"


@pytest.fixture(scope="module")
def policy():
    return load_policy(TASK)


@pytest.mark.parametrize("n", [1, 64, 1024])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_one_decision(benchmark, policy, backend, n):
    states = np.random.default_rng(0).standard_normal((1, 29)).astype(np.float32)
    kept = benchmark(policy.sample, states, n, 1.0, 1.0, backend=backend)
    assert torch.isfinite(kept.actions).all()


def test_packing(benchmark, policy):
    packed = benchmark(pack, policy.model.network, 15)
    assert packed.num_blocks == 3


def test_transitions_of_a_million_rows(benchmark):
    rng = np.random.default_rng(0)
    n = 1_000_000
    raw = {"observations": rng.standard_normal((n, 29), np.float32),
           "actions": rng.standard_normal((n, 8), np.float32), "rewards": np.zeros(n, np.float32),
           "terminals": np.zeros(n, bool), "timeouts": np.arange(n) % 1000 == 999}
    data = benchmark.pedantic(to_transitions, (raw,), rounds=3)
    assert len(data) == n - 1000


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_actor_step(benchmark, policy, precision):
    import copy

    settings = TrainSettings(actor_batch=256, dropout=0.0, precision=precision)
    trainer = DiffusionTrainer(copy.deepcopy(policy.model.network).train(), NoiseSchedule.vp(15), settings,
                               torch.device("cpu"))
    rows = torch.randn(4096, 38)
    draws = {k: v[0] for k, v in trainer.draw(torch.Generator(), 1, 4096).items()}
    losses = benchmark(lambda: trainer.step(rows[draws["rows"]], draws))
    assert torch.isfinite(losses).all()


def test_critic_step(benchmark):
    trainer = CriticTrainer(29, 8, TrainSettings(), torch.device("cpu"))
    batch = torch.randn(256, 68)
    losses = benchmark(lambda: trainer.step(batch, {}))
    assert torch.isfinite(losses).all()


def test_environment_step(benchmark):
    env = make_env(TASK)
    env.reset(0)
    observation, _, _ = benchmark.pedantic(env.step, (np.zeros(8),), rounds=200, warmup_rounds=20)
    assert observation.shape == (29,)
