"""Shared fixtures. Nothing here needs a network, a dataset on disk, or a GPU."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

# Before torch begins its threads: those that spin take the other workers' cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

# Before anything imports Triton: without a GPU its interpreter runs the kernels on CPU tensors.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # Minari asks the Hugging Face hub, and several times
if "PYTEST_XDIST_WORKER" not in os.environ:
    # The kernels' defaults are tested, not what a user's tuning has kept; all workers share what is built.
    os.environ["SWG_FAST_CACHE"] = tempfile.mkdtemp(prefix="swg-fast-tests-")
    atexit.register(shutil.rmtree, os.environ["SWG_FAST_CACHE"], ignore_errors=True)

import h5py
import numpy as np
import pytest

from swg_fast.kernels.shared.sampler_table import SamplerTable
from swg_fast.method.networks import ScoreNetwork, TwinQ
from swg_fast.method.sampler_names import SAMPLERS
from swg_fast.method.samplers import sampler_table
from swg_fast.method.schedule import NoiseSchedule

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores
    SHARE = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(SHARE))  # of the processes that tests start
    torch.set_num_threads(SHARE)

T, U, V = TypeVar("T"), TypeVar("U"), TypeVar("V")
DATA = Path(__file__).parent / "data"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def check_overflow(on: bool) -> None:
    """Whether Triton's interpreter checks 32-bit sums and products, which doubles its time."""
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=on)


def patch_once_a_launch() -> None:
    """Has the interpreter replace the functions of triton.language once a launch. Left alone it does so again
    at each call of a jitted function, to no effect: a quarter of its time."""
    from triton import language
    from triton.runtime import interpreter

    patch = interpreter._patch_lang
    everything = SimpleNamespace(__globals__={"tl": language, "core": language.core})

    def patch_lang(fn: Callable) -> object:
        return None if language.arange is not arange else patch(everything)

    arange = language.arange
    interpreter._patch_lang = patch_lang


if INTERPRETED:
    check_overflow(False)
    patch_once_a_launch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for processes of their own begin first, and slow ones before quick ones: at the end no
    core waits for one long test."""
    items.sort(key=lambda item: (not item.get_closest_marker("waits"), not item.get_closest_marker("slow")))


@pytest.fixture
def overflow_checked() -> Iterator[None]:
    """For a test of each kernel: the interpreter checks every 32-bit sum and product."""
    if INTERPRETED:
        check_overflow(True)
    yield
    if INTERPRETED:
        check_overflow(False)


def every_pair(rows: Sequence[T], columns: Sequence[U], few: Sequence[V]) -> list[tuple[T, U, V]]:
    """Every row with every column, and one of ``few`` in turn: each pair of two. All three at once would
    multiply the time and add no pair."""
    return [(row, column, few[(i + j) % len(few)]) for i, row in enumerate(rows)
            for j, column in enumerate(columns)]


def relative_error(out: torch.Tensor, ref: torch.Tensor) -> float:
    """||out - ref|| / ||ref||; NaN anywhere gives NaN, which passes no bound."""
    out, ref = torch.as_tensor(out).double(), torch.as_tensor(ref).double()
    assert out.shape == ref.shape, (out.shape, ref.shape)
    return float((out - ref).norm() / ref.norm().clamp(min=1e-300))


def make_network(state_dim: int, action_dim: int, hidden_dim: int = 64, num_blocks: int = 3,
                 weight_head: str = "early", seed: int = 0) -> ScoreNetwork:
    """A network whose LayerNorms and biases are not at their trivial initial values."""
    torch.manual_seed(seed)
    network = ScoreNetwork(state_dim, action_dim, hidden_dim, num_blocks, weight_head)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm.weight" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.uniform_(-0.2, 0.2)
        # Predicted weights near the middle of the clip, so that guidance is not zero.
        bias = network.output.bias if weight_head == "joint" else network.weight_output.bias
        bias[-1] = -0.4
    return network.eval()


def tables_of(sampler: str) -> Callable[..., SamplerTable]:
    """A function that makes the sampler's table."""
    def make(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
             weight_readout: str = "exact", **settings: object) -> SamplerTable:
        return sampler_table(sampler, schedule, guidance_scale=guidance_scale, temperature=temperature,
                             weight_readout=weight_readout, **settings)

    make.__name__ = sampler
    return make


ddpm, ddpm_x0, ddim, dpmpp_2m, dpmpp_2m_sde = map(tables_of, SAMPLERS)


def make_recording(n: int = 600, episode: int = 50, states: int = 29, actions: int = 8,
                   seed: int = 0) -> dict[str, np.ndarray]:
    """Raw arrays in D4RL's layout, with rewards that depend on the action."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (n, actions)).astype(np.float32)
    return {
        "observations": rng.standard_normal((n, states)).astype(np.float32),
        "actions": action,
        "rewards": (action[:, 0] > 0.5).astype(np.float32),
        "terminals": rng.random(n) < 0.02,
        "timeouts": np.arange(n) % episode == episode - 1,
    }


def write_hdf5(path: Path, raw: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in raw.items():
            file[key] = value
    return path


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    return write_hdf5(tmp_path / "data.hdf5", make_recording())


@pytest.fixture(scope="session")
def schedule() -> NoiseSchedule:
    return NoiseSchedule.vp(15)


@pytest.fixture(scope="session")
def critic() -> TwinQ:
    torch.manual_seed(5)
    return TwinQ(5, 3, 32).eval()


def run_cli(*arguments: object, cwd: Path, program: Callable[[], None] | None = None
            ) -> subprocess.CompletedProcess[str]:
    """`swg-fast ARGUMENTS` in ``cwd``, or another ``program``, in this process: a new one spends seconds on
    importing torch."""
    from swg_fast.cli.main import main

    out, err, code, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    command = ["swg-fast", *map(str, arguments)]
    with (contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
          mock.patch.object(sys, "argv", command)):
        try:
            (program or main)()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def poison_kernel_memory(monkeypatch) -> None:
    """What the fused kernels are given to write holds NaN, or -1, so that what they leave out shows."""
    from swg_fast.kernels.fused import launch

    def poisoned(device, *shape, dtype=torch.float32):
        return torch.full(shape, torch.nan if dtype.is_floating_point else -1, dtype=dtype, device=device)

    monkeypatch.setattr(launch, "_unwritten", poisoned)


@pytest.fixture
def emulated(monkeypatch) -> None:
    """For tests that run compiled kernels in the emulator: none where a GPU would, and poisoned memory."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: the kernels run on it")
    poison_kernel_memory(monkeypatch)
