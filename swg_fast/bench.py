"""``swg-fast bench``: candidates/s of every backend and peer, interleaved, beside this machine's own
ceiling for matrix products."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.backends import BACKENDS, backend_class
from swg_fast.errors import UsageError
from swg_fast.policy import Policy

Run = Callable[[int], Any]  # one decision; the argument is its seed
COLORS = {"reference": "#999999", "torch": "#e69f00", "cpu": "#0072b2", "triton": "#d55e00",
          "jax": "#009e73"}
MARKERS = {"reference": "o", "torch": "s", "cpu": "^", "triton": "P", "jax": "D"}


def gemm_ceiling(dtype: str, device: torch.device, hidden: int) -> float:
    """The best rate (FLOP/s) of the network's own product shape, [M, H] x [H, 4H], on this machine:
    with oneDNN's packed layer on a CPU, the library's product elsewhere."""
    from kernels.cpu import PackedLinear

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    M = 4096 if device.type == "cpu" else 65536
    x = torch.randn(M, hidden, device=device).to(kind)
    w = torch.randn(4 * hidden, hidden, device=device).to(kind)
    layer = PackedLinear(w, None) if device.type == "cpu" else (lambda x: x @ w.T)
    times = []
    for _ in range(12):
        _wait(device)
        started = time.perf_counter()
        layer(x)
        _wait(device)
        times.append(time.perf_counter() - started)
    return 2 * M * hidden * 4 * hidden / statistics.median(times[2:])


def run_bench(policy: Policy, *, candidates: list[int], n_states: list[int], backends: list[str],
              dtypes: list[str] | None, guidance_scale: float = 5.0, repeats: int = 5,
              max_seconds: float = 10.0, progress: bool = True) -> dict[str, Any]:
    """Measures every backend and peer for each size; see `swg-fast bench --help`.

    All contenders of a size take turns, ``repeats`` rounds, so that a drift of the machine meets all
    of them; the first call of each is apart, as its warm-up. A contender whose single decision would
    take more than ``max_seconds`` is left out of that size, and said so under "left_out".
    """
    from tqdm import tqdm

    contenders = _contenders(policy, backends, dtypes, guidance_scale)
    network = policy.model.network
    device = policy.device
    ceilings = {dtype: gemm_ceiling(dtype, device, network.hidden_dim)
                for dtype in {dtype for _, dtype, _ in contenders}}
    flops = _flops(policy)
    rng = np.random.default_rng(0)
    results, left_out, rates = [], [], {}
    sizes = [(b, n) for b in n_states for n in candidates]
    for b, n in tqdm(sizes, desc="sizes", unit="size", disable=not progress):
        states = rng.standard_normal((b, policy.state_dim)).astype(np.float32)
        live = []
        for name, dtype, make in contenders:
            rate = rates.get((name, dtype))
            if rate and b * n / rate > max_seconds:
                left_out.append({"backend": name, "dtype": dtype, "n_states": b, "n_candidates": n,
                                 "reason": f"one decision would take {b * n / rate:.0f} s"})
                continue
            run = make(states, n)
            started = time.perf_counter()
            run(0)
            _wait(device)
            live.append((name, dtype, run, time.perf_counter() - started, []))
        for turn in range(repeats):
            for _, _, run, _, times in live:
                _wait(device)
                started = time.perf_counter()
                run(turn + 1)
                _wait(device)
                times.append(time.perf_counter() - started)
        reference = next((statistics.median(t) for name, _, _, _, t in live if name == "reference"), None)
        for name, dtype, _, warmup, times in live:
            seconds = statistics.median(times)
            rates[name, dtype] = b * n / seconds
            results.append({
                "backend": name, "dtype": dtype, "device": str(device), "n_states": b,
                "n_candidates": n, "candidates_per_second": b * n / seconds,
                "milliseconds": 1e3 * seconds, "milliseconds_min": 1e3 * min(times),
                "milliseconds_max": 1e3 * max(times), "first_call_seconds": warmup,
                "speedup_over_reference": reference / seconds if reference else None,
                "gflops": b * n * flops / seconds / 1e9,
                "percent_of_ceiling": 100 * b * n * flops / seconds / ceilings[dtype],
                "peak_bytes": _peak(device)})
    return {"results": results, "left_out": left_out,
            "ceiling_gflops": {k: v / 1e9 for k, v in ceilings.items()},
            "network": network.config(), "num_steps": policy.model.schedule.num_steps,
            "guidance_scale": guidance_scale, "repeats": repeats,
            "threads": torch.get_num_threads(), "device_name": _device_name(device)}


def _contenders(policy: Policy, backends: list[str], dtypes: list[str] | None, rho: float
                ) -> list[tuple[str, str, Callable[[np.ndarray, int], Run]]]:
    """(name, type, maker): the maker gives a function that takes one decision."""
    found = []
    names = [*BACKENDS, "jax"] if backends == ["all"] else backends
    for name in names:
        if name == "jax":
            if importlib.util.find_spec("jax") is None:
                if backends != ["all"]:
                    raise UsageError("peer 'jax' is not installed; pip install 'swg-fast[bench]'")
                continue
            found += [("jax", dtype, _jax_maker(policy, dtype, rho))
                      for dtype in ("fp32", "bf16") if not dtypes or dtype in dtypes]
            continue
        for dtype in backend_class(name).dtypes:
            if dtype == "fp64" or (dtypes and dtype not in dtypes):
                continue
            try:
                policy.backend(name, dtype)
            except UsageError:
                if backends != ["all"]:
                    raise
                continue  # not on this machine
            found.append((name, dtype, _backend_maker(policy, name, dtype, rho)))
    if not found:
        raise UsageError("no backend is left to measure; widen --backends or --dtypes")
    return found


def _backend_maker(policy: Policy, name: str, dtype: str, rho: float
                   ) -> Callable[[np.ndarray, int], Run]:
    def make(states: np.ndarray, n: int) -> Run:
        return lambda seed: policy.sample(states, n, rho, 1.0, seed=seed, backend=name, dtype=dtype)

    return make


def _jax_maker(policy: Policy, dtype: str, rho: float) -> Callable[[np.ndarray, int], Run]:
    root = str(Path(__file__).resolve().parents[1])  # of a checkout; peers are not installed
    if root not in sys.path:
        sys.path.append(root)
    try:
        from benchmarks.peers.jax_sampler import make_sampler
    except ImportError as error:
        raise UsageError("peer 'jax' lives in benchmarks/, which is not installed; run from a "
                         "checkout of the project") from error
    from swg_fast.samplers import sampler_table

    table = sampler_table("ddpm", policy.model.schedule, guidance_scale=rho, temperature=1.0)
    sampler = make_sampler(policy.model.network, table, dtype)
    return lambda states, n: lambda seed: sampler(states, n, seed)


def _flops(policy: Policy) -> int:
    from kernels.pack import pack

    return pack(policy.model.network, policy.model.schedule.num_steps).flops_per_candidate(True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(device: torch.device) -> int:
    """Peak bytes: of the device's allocator on CUDA, of the whole process so far on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def plot_bench(result: dict[str, Any], path: Path) -> None:
    """Throughput against N, log-log, one line a backend and type, ceilings dashed."""
    from matplotlib.figure import Figure

    from swg_fast.files import replacing

    rows = result["results"]
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    states = min(row["n_states"] for row in rows)
    keys = sorted({(row["backend"], row["dtype"]) for row in rows})
    for backend, dtype in keys:
        line = sorted((row["n_candidates"], row["candidates_per_second"]) for row in rows
                      if (row["backend"], row["dtype"], row["n_states"]) == (backend, dtype, states))
        axes.plot(*zip(*line, strict=True), marker=MARKERS.get(backend, "x"),
                  color=COLORS.get(backend, "#56b4e9"), linestyle="-" if dtype == "bf16" else ":",
                  label=f"{backend} {dtype}")
    per_candidate = rows[0]["gflops"] / rows[0]["candidates_per_second"]
    for dtype, ceiling in sorted(result["ceiling_gflops"].items()):
        axes.axhline(ceiling / per_candidate, linestyle="--", color="black", linewidth=1)
        axes.annotate(f"products alone, {dtype}", (0.01, ceiling / per_candidate), fontsize=8,
                      xycoords=("axes fraction", "data"), va="bottom")
    axes.set(xscale="log", yscale="log", xlabel=f"candidates N ({states} state)",
             ylabel="guided candidates/s", title=f"{result['device_name']}, {result['threads']} threads")
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
