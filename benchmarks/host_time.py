"""The host's time of a decision: what a control loop waits for beside the arithmetic.

    python -m benchmarks.host_time [--json benchmarks/results/host-time.json]

For the fused kernels it needs no GPU: a stand-in takes the place of kernels and of captured graphs, so that
Python, checks and torch's calls are left. On a GPU every call of torch is a launch or a copy and takes longer
there; `operators` counts them. For the CPU path a network of 16 wide, with hardly any arithmetic, stands
beside the usual one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measuring import save
from swg_fast.cli.ending import run
from swg_fast.common.output_paths import check_outputs
from swg_fast.policy.bound_sampler import BoundSampler
from swg_fast.policy.policy import untrained_policy

STATE, ACTION = 29, 8  # Ant Maze's
WIDTHS = {"cpu": (16, 256), "triton": (256,)}
# Whose launches are counted: a student's call is a walk of one unguided step.
WALKS: dict[str, dict[str, Any]] = {
    "15 steps, guided": {},
    "15 steps, the last 8 guided": {"guidance_interval": (0, 7)},
    "a student's call": {"sampler": "ddim", "sampler_steps": 1, "guidance_scale": 0.0}}
CALLS = {"cpu": 200, "triton": 1000}


class Counted(TorchDispatchMode):
    """Counts torch's calls that compute or copy; a view does neither."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


class NoKernel:
    """A kernel whose launch does nothing but count."""

    launches = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._launch

    def _launch(self, *arguments: Any, **constants: Any) -> None:
        self.launches += 1


@contextmanager
def no_device() -> Iterator[NoKernel]:
    """The layered kernels and their graphs without a device: launches and replays do nothing."""
    from swg_fast.kernels.fused import launch
    from swg_fast.kernels.fused.layered import launch as layered_launch
    from swg_fast.kernels.fused.layered import plan

    def zeros(device: torch.device, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    kernel = NoKernel()
    with ExitStack() as stack:
        for name in [name for name in vars(plan) if name.endswith("_kernel")]:
            stack.enter_context(mock.patch.object(plan, name, kernel))
        stack.enter_context(mock.patch.object(layered_launch, "replays", lambda device: True))
        stack.enter_context(mock.patch.object(layered_launch, "capture", lambda once: lambda: None))
        stack.enter_context(mock.patch.object(launch, "_unwritten", zeros))
        yield kernel


def timed(decide: Callable[[int], Any], calls: int) -> dict[str, Any]:
    """Median microseconds of a call of ``decide`` with a seed, and how many of torch's operators it takes.
    This thread's own time: other work on the machine does not count."""
    for seed in range(20):
        decide(seed)
    times = []
    for seed in range(calls):
        started = time.thread_time()
        decide(seed)
        times.append(time.thread_time() - started)
    with Counted() as counted:
        decide(0)
    return {"microseconds": 1e6 * statistics.median(times), "operators": counted.count}


def measure(backend: str, hidden: int, n: int) -> list[dict[str, Any]]:
    """`BoundSampler.draw` of a state on the device, and `BoundSampler.sample` of a numpy array."""
    policy = untrained_policy(STATE, ACTION, "cpu", hidden_dim=hidden)
    bound: BoundSampler = policy.bind(n_candidates=n, temperature=1.0, backend=backend)
    state = torch.zeros(1, STATE)
    calls = {"draw": lambda seed: bound.draw(state, seed),
             "sample": lambda seed: bound.sample(state.numpy(), seed=seed)}
    return [{"backend": backend, "hidden_dim": hidden, "n_candidates": n, "call": name}
            | timed(decide, CALLS[backend])
            for name, decide in calls.items()]


def count_launches(kernel: NoKernel) -> dict[str, int]:
    """The layered kernels' launches for a decision of 1,024 candidates by each of `WALKS`."""
    policy, state = untrained_policy(STATE, ACTION, "cpu", hidden_dim=256), torch.zeros(1, STATE)
    found = {}
    for name, walk in WALKS.items():
        before = kernel.launches
        policy.bind(n_candidates=1024, temperature=1.0, backend="triton", **walk).draw(state, 0)
        found[name] = kernel.launches - before
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each measurement."""
    lines = ["| backend | hidden | N | call | host, microseconds | calls of torch |", "|---" * 6 + "|"]
    lines += [f"| `{row['backend']}` | {row['hidden_dim']} | {row['n_candidates']:,} | `{row['call']}` "
              f"| {row['microseconds']:.0f} | {row['operators']} |" for row in rows]
    return "\n".join(lines)


@click.command()
@click.option("--json", "json_path", type=Path, help="Write the figures to this file.")
def main(json_path: Path | None) -> None:
    """Measures the host's time of a decision without a GPU."""
    check_outputs(json=json_path)
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels then take CPU tensors
    torch.set_num_threads(1)
    rows = [row for hidden in WIDTHS["cpu"] for row in measure("cpu", hidden, 16)]
    with no_device() as kernel:
        launches = count_launches(kernel)
        rows += [row for n in (1, 1024) for row in measure("triton", *WIDTHS["triton"], n)]
    click.echo(markdown(rows))
    if json_path is not None:
        save(json_path, {"rows": rows, "launches": launches})


if __name__ == "__main__":
    run(main)
