"""The configuration of a launch: the table's, or the one that was measured and kept."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
import triton
from conftest import DEVICE, make_network

from swg_fast import NoiseSchedule, Policy, UsageError
from swg_fast.kernels.fused import configurations, launch, tuning
from swg_fast.kernels.fused.configurations import SHARED_99, SHARED_163, Config
from swg_fast.kernels.fused.records import Work
from swg_fast.method.samplers import sampler_table
from swg_fast.policy.backends.registry import make_backend, resolve


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path))


def test_the_fastest_of_those_that_fit():
    slow, quick, large = Config(16, 16, 4, 1), Config(32, 16, 4, 1), Config(128, 64, 8, 3)

    def run(config):
        if config == large:
            raise triton.runtime.errors.OutOfResources(300_000, 232_448, "shared memory")
        time.sleep(0.02 if config == slow else 0.001)

    trials = tuning.measure(run, (slow, quick, large), lambda: None, repeats=3)
    assert tuning.fastest(trials).config == quick
    [unfit] = [trial for trial in trials if trial.seconds is None]
    assert unfit.config == large and "shared memory" in unfit.reason
    with pytest.raises(RuntimeError, match="shared memory"):
        tuning.fastest([unfit])


def test_choices_are_kept_apart_and_survive():
    kept = tuning.Trial(Config(32, 32, 4, 1), 0.5)
    tuning.remember("one", kept)
    tuning.remember("two", tuning.Trial(Config(64, 32, 8, 2), 0.25))
    assert tuning.remembered("one") == kept.config
    assert tuning.remembered("two") == Config(64, 32, 8, 2)
    assert tuning.remembered("three") is None
    assert [path.name for path in tuning.cache_path().parent.iterdir()] == ["configurations.json"]


def test_a_broken_cache_says_so_and_the_table_serves():
    tuning.cache_path().write_text("{")
    with pytest.warns(UserWarning, match="not readable"):
        assert tuning.remembered("one") is None


@pytest.mark.slow
def test_a_tuned_choice_is_the_one_launched():
    policy = Policy(make_network(2, 2, 64, 1, "joint"), NoiseSchedule.vp(2), device=DEVICE)
    backend = policy.backend("triton", "fp32")
    table = sampler_table("ddpm", policy.model.schedule, guidance_scale=1.0, temperature=1.0)
    work = Work(1, 5, guided=True)
    untuned = backend.network.configs(work)[0]
    assert backend.network.config(work) == untuned
    trials = backend.tune(table, 1, 5, repeats=1)
    assert {trial.config for trial in trials} == set(backend.network.configs(work))
    assert trials[0].seconds == min(t.seconds for t in trials if t.seconds is not None)
    assert backend.network.config(work) == trials[0].config
    other = trials[-1]
    tuning.remember(tuning.key(DEVICE, backend.network.shape, "fp32", work), other)
    assert backend.network.config(work) == backend.network.config(work._replace(candidates=8)) == other.config
    others = [{"guided": False}, {"candidates": 9}, {"states": 5, "candidates": 1}, {"multistep": True}]
    for another in others:
        assert backend.network.config(work._replace(**another)) == untuned
    for another in ({"leaves": 5}, {"draws": 2}):  # without the layered kernels
        assert backend.network.config(work._replace(**another)) == backend.network.configs(work)[1]


def test_a_shape_without_an_entry_has_a_configuration():
    assert configurations.nearest(86, 256, "bf16") == configurations.CONFIGS[80, 256, "bf16"]
    assert configurations.nearest(120, 64, "tf32") == configurations.CONFIGS[80, 64, "tf32"]
    assert configurations.nearest(75, 128, "fp32") == configurations.CONFIGS[80, 128, "fp32"]
    few = configurations.suitable(90, 256, "bf16", 1024, 132)
    many = configurations.suitable(90, 256, "bf16", 2**17, 132)
    assert few[0].tile < many[0].tile
    assert configurations.suitable(90, 256, "bf16", 4096, 132)[0].tile == 64  # tiles of 16 take two turns


def test_what_a_device_reports_decides():
    """99 KiB of shared memory take configurations of their own, more takes the larger ones, less none."""
    small = configurations.nearest(86, 256, "bf16", SHARED_99)
    assert small == configurations.nearest(89, 256, "bf16", SHARED_99)
    assert small == configurations.nearest(121, 256, "bf16", SHARED_99) == configurations.SMALL
    assert configurations.nearest(87, 256, "bf16", SHARED_163) == configurations.AMPERE
    assert configurations.nearest(103, 256, "bf16") == configurations.BLACKWELL
    assert configurations.nearest(120, 128, "tf32", SHARED_99) == configurations.SMALL_TF32_120
    with pytest.raises(UsageError, match="65,536 bytes of shared memory.*backend='torch'"):
        configurations.nearest(75, 256, "bf16", 64 * 1024)


@pytest.mark.parametrize("reported,config", [(SHARED_99, configurations.SMALL.many[0]),
                                             (SHARED_163, configurations.AMPERE.many[0])])
def test_a_network_asks_its_device(monkeypatch, reported, config):
    """A stand-in for a GPU of compute capability 8.9 with 128 multiprocessors."""
    found = SimpleNamespace(multi_processor_count=128, shared_memory_per_block_optin=reported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    shape = SimpleNamespace(H=256, D=9, L=3)
    packed = SimpleNamespace(device=torch.device("cuda:0"))
    network = SimpleNamespace(packed=packed, shape=shape, dtype="bf16")
    assert launch.KernelNetwork.configs(network, Work(1, 2**17, guided=True))[0] == config


def test_rocm_is_refused_by_name(monkeypatch):
    """A torch for AMD's GPUs calls them CUDA devices of capability 9.0."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cuda = torch.device("cuda:0")
    assert resolve("auto", cuda, make_network(5, 3, 64, 2)) == "torch"
    model = Policy(make_network(2, 2, 64, 2), NoiseSchedule.vp(2)).model
    with pytest.raises(UsageError, match="ROCm.*backend='torch'"):
        make_backend("triton", model, "bf16", cuda)


def test_auto_on_cuda_is_the_fused_kernel(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert resolve("auto", cuda, make_network(5, 3, 64, 2)) == "triton"
    assert resolve("auto", cuda, make_network(5, 3, 64, 2), "fp32") == "torch"
    assert resolve("auto", cuda, make_network(5, 3, 96, 2)) == "torch"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve("auto", cuda, make_network(5, 3, 64, 2)) == "torch"
    assert resolve("auto", torch.device("cpu"), make_network(5, 3, 64, 2)) == "cpu"
