"""The parts of `gpu.py`; every function returns its part of the report."""

from __future__ import annotations

import csv
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from swg_fast.evaluation.bench.run import Bench, run_bench
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.samplers import sampler_table
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy

ROOT = Path(__file__).parent.parent
KERNEL_TESTS = ("tests/kernels/fused/test_gpu.py", "tests/kernels/fused/test_portable.py",
                "tests/kernels/fused/test_layered.py", "tests/kernels/training/test_dropout_masks.py",
                "tests/kernels/training/test_adam_triton.py", "tests/training/test_captured_step.py")
CALL = """
import torch, benchmarks.gpu_parts as parts
policy = parts.make_policy(torch.device("cuda"), hidden={hidden})
for _ in range({calls}):
    policy.sample(torch.randn(1, 29), n_candidates={n}, guidance_scale=5.0, backend="triton", dtype="bf16")
torch.cuda.synchronize()
"""
# Nsight Compute's metrics; a percentage is of the device's peak while the kernel runs.
COUNTERS = {
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": "tensor instructions",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": "tensor cores",
    "l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed": "shared memory and L1",
    "lts__t_sectors.avg.pct_of_peak_sustained_elapsed": "L2",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory",
    "sm__inst_issued.avg.pct_of_peak_sustained_active": "issue slots",
    "sm__cycles_active.avg": "cycles", "gpu__time_duration.sum": "nanoseconds"}


def make_policy(device: torch.device, head: str = "joint", hidden: int = 256) -> Policy:
    """An untrained policy with the sizes of Ant Maze: states of 29, actions of 8, 15 steps."""
    torch.manual_seed(0)
    return Policy(ScoreNetwork(29, 8, hidden, weight_head=head), NoiseSchedule.vp(15), device=device)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    """Median seconds of ``repeats`` calls, after two warm-up calls."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(repeats + 2):
        wait()
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def ceilings(device: torch.device, tiny: bool) -> dict[str, float]:
    """Bytes/s of a copy on the device (reads and writes); FLOP/s of products in bf16, tf32 and fp32."""
    source, n = torch.randn(2**22 if tiny else 2**28, device=device), 256 if tiny else 8192
    target = torch.empty_like(source)
    found = {"copy_bytes_per_second": 8 * source.numel() / seconds(lambda: target.copy_(source), device)}
    for name, kind, precision in (("bf16", torch.bfloat16, "highest"), ("tf32", torch.float32, "high"),
                                  ("fp32", torch.float32, "highest")):
        a, b = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
        torch.set_float32_matmul_precision(precision)
        found[f"{name}_flops"] = 2 * n**3 / seconds(lambda a=a, b=b: a @ b, device)
    torch.set_float32_matmul_precision("highest")
    return found


def parity(device: torch.device, tiny: bool) -> str:
    """The last line of the kernel tests' output on this device; failures are printed."""
    chosen = ["-k", "guided_step and D9"] if tiny else []
    spread = ["-n", str(min(12, os.cpu_count() or 1))] if device.type == "cuda" else []
    out = subprocess.run([sys.executable, "-m", "pytest", "-rf", *spread, *KERNEL_TESTS, *chosen],
                         capture_output=True, text=True, cwd=ROOT)
    lines = [line for line in out.stdout.splitlines() if " passed" in line or " failed" in line]
    if out.returncode or not lines:
        print(out.stdout[-6000:], out.stderr[-1000:], file=sys.stderr)
    return lines[-1].strip("= ") if lines else f"pytest ended with {out.returncode}"


def sanitizer(device: torch.device, tiny: bool) -> dict[str, str]:
    """compute-sanitizer's summary of a small case of each kernel."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or device.type != "cuda":
        return {"left out": "no compute-sanitizer" if tool is None else "no GPU"}
    found = {}
    for n in (100, 20_000):  # sizes for the layered and for the portable or Gluon kernel
        code = CALL.format(hidden=128, calls=1, n=n)
        for check in ("memcheck", "racecheck"):
            out = subprocess.run([tool, "--tool", check, sys.executable, "-c", code], cwd=ROOT,
                                 capture_output=True, text=True)
            lines = [line for line in out.stdout.splitlines() if "SUMMARY" in line]
            found[f"{check} {n}"] = lines[-1].strip("= ") if lines else f"ended with {out.returncode}"
    return found


def configurations(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Milliseconds of every configuration for few and for many candidates of one state."""
    rows = []
    for head in ("joint", "early"):
        policy = make_policy(device, head, 64 if tiny else 256)
        backend = policy.backend("triton", "bf16")
        table = sampler_table("ddpm", policy.model.schedule, guidance_scale=5.0, temperature=1.0)
        for n in [64] if tiny else [1024, 4096, 2**17]:
            rows += [{"head": head, "n_candidates": n, "config": vars(trial.config), "reason": trial.reason,
                      "milliseconds": None if trial.seconds is None else 1e3 * trial.seconds}
                     for trial in backend.tune(table, 1, n, 3)]
    return rows


def few(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Milliseconds of whole decisions by the layered and by the portable kernel."""
    from swg_fast.kernels.fused import launch

    policy, state = make_policy(device, hidden=64 if tiny else 256), torch.randn(1, 29, device=device)
    rows, up_to = [], launch.LAYERS_UP_TO
    for sampler, steps in (("ddpm", None), ("dpmpp_2m_sde", 2 if tiny else 6)):
        for n in (1, 16) if tiny else (1, 16, 64, 256, 1024, 2048, 4096):
            row = {"sampler": sampler, "n_candidates": n}
            for kind, most in (("layers", n), ("portable", 0)):
                launch.LAYERS_UP_TO = most
                row[kind] = 1e3 * seconds(lambda n=n, sampler=sampler, steps=steps: policy.sample(
                    state, n_candidates=n, guidance_scale=5.0, temperature=1.0, backend="triton",
                    dtype="bf16", sampler=sampler, sampler_steps=steps, seed=0),
                    device, 1 if tiny else 20)
            rows.append(row)
    launch.LAYERS_UP_TO = up_to
    return rows


def layered(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Milliseconds of the layered kernels alone, by configuration."""
    from swg_fast.kernels.fused import launch
    from swg_fast.kernels.fused.configurations import LAYERS, Config

    policy, state = make_policy(device, hidden=64 if tiny else 256), torch.randn(1, 29, device=device)
    network, rows = policy.backend("triton", "bf16").network, []
    table = sampler_table("ddpm", policy.model.schedule, guidance_scale=5.0, temperature=1.0)
    words = torch.arange(1, device=device)
    shapes = {64: [(16, 32, 4, 2), (16, 32, 4, 6), (16, 128, 4, 4), (32, 32, 4, 4)],
              1024: [(64, 128, 4, 4), (64, 128, 8, 3), (64, 128, 8, 6), (64, 64, 4, 4), (128, 64, 8, 4)]}
    for n in (16,) if tiny else (64, 1024):
        others = [Config(*shape, kind="layers") for shape in shapes.get(n, ())]
        for config in LAYERS[:1] if tiny else (*LAYERS, *others):
            for _ in range(2):  # the second call captures the graph
                launch.sample(network, table, state, words, launch.Asked(n, 0, config=config))
            *_, plan = network.plans.values()
            taken = seconds(lambda plan=plan: [plan.once() for _ in range(1 if tiny else 10)], device,
                            1 if tiny else 5) / (1 if tiny else 10)
            rows.append({"n_candidates": n, "config": vars(config), "milliseconds": 1e3 * taken})
    return rows


def throughput(device: torch.device, tiny: bool, head: str = "joint") -> Bench:
    """Eager autograd, the analytic gradient and the fused kernels, for 64 to a million candidates."""
    names = ["reference", "torch:bf16", *(["triton:bf16"] if device.type == "cuda" else [])]
    sizes = [2**k for k in (6, 10, 14, 17, 20)] if head == "joint" else [2**17]
    return run_bench(make_policy(device, head, 64 if tiny else 256), candidates=[64] if tiny else sizes,
                     n_states=[1], backends=names, dtypes=["fp32", "bf16"], repeats=2, max_seconds=1.5)


def early(device: torch.device, tiny: bool) -> Bench:
    """The same for the early weight head and many candidates."""
    return throughput(device, tiny, "early")


def peers(device: torch.device, tiny: bool, swg_jax: str | None = None) -> Bench:
    """The same beside `torch.compile`, jitted JAX and SWG-JAX, in one run, few and many candidates."""
    # torch.compile takes a minute a size, so only its faster type, bf16, runs.
    ours = "triton:bf16" if device.type == "cuda" else "cpu"
    names = ["reference", "torch", ours, "compile:bf16", "jax", *(["swg-jax"] if swg_jax else [])]
    return run_bench(make_policy(device, hidden=64 if tiny else 256),
                     candidates=[64] if tiny else [1024, 2**17], n_states=[1], backends=names,
                     dtypes=["fp32", "bf16"], repeats=2, max_seconds=3.0, swg_jax=swg_jax)


def memory(device: torch.device, tiny: bool) -> dict[str, int]:
    """Peak bytes of a decision beyond the policy's own, by the number of candidates of one state."""
    found: dict[str, int] = {}
    for n in (1024, 2**20) if device.type == "cuda" else ():
        policy, state = make_policy(device), torch.randn(1, 29, device=device)
        policy.sample(state, n_candidates=n, guidance_scale=5.0, backend="triton", dtype="bf16", seed=0)
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        policy.sample(state, n_candidates=n, guidance_scale=5.0, backend="triton", dtype="bf16", seed=0)
        found[str(n)] = torch.cuda.max_memory_allocated() - held
    return found


def counters(device: torch.device, tiny: bool) -> dict[str, Any]:
    """Hardware counters of the kernel for many candidates, by Nsight Compute."""
    tool = shutil.which("ncu")
    if tool is None or device.type != "cuda":
        return {"left out": "no ncu" if tool is None else "no GPU"}
    candidates = 2**15
    code = CALL.format(hidden=256, calls=2, n=candidates)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        ran = subprocess.run(
            [tool, "--clock-control", "none", "-k", "regex:sample_kernel", "-s", "1", "-c", "1", "-o", report,
             "--metrics", ",".join(COUNTERS), sys.executable, "-c", code],
            cwd=ROOT, capture_output=True, text=True)
        out = subprocess.run([tool, "--import", f"{report}.ncu-rep", "--page", "raw", "--csv",
                              "--print-units", "base"], capture_output=True, text=True)
    rows = list(csv.reader(io.StringIO(out.stdout)))
    if len(rows) < 3:
        return {"left out": (ran.stdout + ran.stderr).strip()[-300:]}
    values = dict(zip(rows[0], rows[-1], strict=False))
    try:
        found = {name: float(values[metric].replace(",", "")) for metric, name in COUNTERS.items()}
    except (KeyError, ValueError) as error:
        return {"left out": f"ncu gave no number for {error}"}
    return found | {"n_candidates": candidates}


def training(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Steps/s of the captured step, the eager one and jitted JAX."""
    from benchmarks.training_worker import build

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    rows = []
    for phase, precision, batch in (("critic", "fp32", 256), ("actor", "fp32", 256), ("actor", "bf16", 256),
                                    ("actor", "bf16", 1024)):
        row = {"phase": phase, "precision": precision, "batch": batch}
        for contender in ("swg_fast", "plain", "jax"):
            some, count = build(contender, phase, precision, batch, device)
            some()
            if contender == "jax":
                import jax

                timed = seconds(lambda some=some: jax.block_until_ready([some() for _ in range(20)]),
                                torch.device("cpu"), 2 if tiny else 5) / 20
            else:
                timed = seconds(lambda some=some: [some() for _ in range(4)], device, 2 if tiny else 5) / 4
            row[contender] = count / timed
        rows.append(row)
    return rows
