"""pytest-benchmark suites: `make bench` runs them and compares with the stored baseline.

`test_products` is the yardstick: `benchmarks/compare.py` gives every other time in units of it, so that runs
on different machines or under different loads are comparable.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from swg_fast.data import load_dataset
from swg_fast.data.transitions import to_transitions
from swg_fast.envs import make_env
from swg_fast.evaluation.bench.contenders import products
from swg_fast.kernels.cpu.network_onednn import has_native_bf16
from swg_fast.kernels.shared.packing import pack
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.settings import TrainSettings

TASK = "antmaze-umaze-v2"


@pytest.fixture(scope="module")
def policy():
    return load_policy(TASK)


@pytest.fixture(scope="module")
def states():
    return np.random.default_rng(0).standard_normal((4, 29)).astype(np.float32)


def test_products(benchmark):
    """The network's own products in fp32, and nothing else."""
    benchmark(products("fp32", torch.device("cpu"), 256))


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_one_step(benchmark, policy, states, backend):
    """A guided step of 256 candidates, as a decision of a policy whose schedule has one step."""
    one = Policy(policy.model.network, NoiseSchedule.vp(1))
    kept = benchmark(one.sample, states[:1], n_candidates=256, seed=0, backend=backend)
    assert torch.isfinite(kept.actions).all()


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("n", [1, 64])
def test_one_decision(benchmark, policy, states, backend, n):
    kept = benchmark(policy.sample, states[:1], n_candidates=n, temperature=1.0, seed=0, backend=backend)
    assert torch.isfinite(kept.actions).all()


@pytest.mark.parametrize("n", [256, 1024, 4096])
def test_resampling(benchmark, policy, states, n):
    """One state with growing numbers of candidates, in this machine's fastest type."""
    kept = benchmark.pedantic(policy.sample, (states[:1],), {"n_candidates": n, "seed": 0, "backend": "cpu"},
                              rounds=5, warmup_rounds=1)
    assert torch.isfinite(kept.actions).all()


def test_loading_a_dataset(benchmark, tmp_path):
    """A D4RL HDF5 file of 200,000 rows, from disk to transitions."""
    rng, n = np.random.default_rng(0), 200_000
    with h5py.File(tmp_path / "maze.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((n, 29), np.float32)
        file["actions"] = rng.uniform(-1, 1, (n, 8)).astype(np.float32)
        file["rewards"] = np.zeros(n, np.float32)
        file["terminals"] = np.zeros(n, bool)
        file["timeouts"] = np.arange(n) % 1000 == 999
    data = benchmark.pedantic(load_dataset, (str(tmp_path / "maze.hdf5"),), rounds=3, warmup_rounds=1)
    assert len(data) == n - 200


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

    if precision == "bf16" and not has_native_bf16():
        pytest.skip("this processor has no native bf16")
    settings = TrainSettings(actor_batch=256, dropout=0.0, precision=precision)
    network = copy.deepcopy(policy.model.network).train().requires_grad_()
    trainer = DiffusionTrainer(network, NoiseSchedule.vp(15), settings, torch.device("cpu"))
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


def test_evaluation_step(benchmark, policy):
    """One step of an evaluation: 16 candidates for an observation, and one environment step."""
    env = make_env(TASK)
    held = [env.reset(0)]

    def once() -> None:
        kept = policy.sample(held[0], n_candidates=16, backend="cpu", seed=0)
        held[0], _, _ = env.step(kept.actions[0].numpy())

    benchmark.pedantic(once, rounds=50, warmup_rounds=5)
    assert np.isfinite(held[0]).all()
