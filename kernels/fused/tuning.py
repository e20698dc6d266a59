"""Finds the fastest configuration on a device and keeps it on disk.

Tuning runs only on request. A different tile sums in a different order, which can change the choice between
two nearly equal candidates; a search must not change its answer because a cache was filled.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton

from swg_fast.common.errors import note
from swg_fast.common.provenance import versions
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.fused.records import Shape, Work
from swg_fast.kernels.shared.binary_cache import cache_folder


@dataclass(frozen=True)
class Trial:
    """A configuration's median time, or the reason why it has none."""

    config: Config
    seconds: float | None
    reason: str = ""


def cache_path() -> Path:
    """The file that keeps the choices."""
    return cache_folder() / "configurations.json"


@lru_cache(maxsize=64)
def key(device: torch.device, shape: Shape, dtype: str, work: Work) -> str:
    """The conditions of a choice: device, Triton, this package's version, the network's shape, and the work,
    with states and candidates to a power of 2."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"
    head = f"early {shape.E}" if shape.EARLY else "joint"
    states, candidates = ((count - 1).bit_length() for count in (work.states, work.candidates))
    return (f"{name}, triton {triton.__version__}, swg-fast {versions()['swg-fast']}, {dtype}, "
            f"H {shape.H}, L {shape.L}, DP {shape.DP}, {head}, {'guided' if work.guided else 'unguided'}, "
            f"{'multistep' if work.multistep else 'one step'}, leaves {work.leaves}, draws {work.draws}, "
            f"2^{states} x 2^{candidates}")


@lru_cache
def _read(path: Path) -> dict[str, Any]:
    """The choices in ``path``, read once a process: a launch must not wait for the disk."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        note(f"{path}: not readable ({error}); delete it and run 'swg-fast tune' again")
        return {}


def remembered(name: str) -> Config | None:
    """The choice kept under a `key`; None if there is none, or if an older version kept it."""
    config = _read(cache_path()).get(name, {}).get("config", {})
    return Config(**config) if config.keys() == Config.__dataclass_fields__.keys() else None


def remember(name: str, trial: Trial) -> None:
    """Keeps a choice; replaces the file atomically."""
    path = cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    _read.cache_clear()  # another process may have written since
    entries = _read(path) | {name: asdict(trial)}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        file.write(json.dumps(entries, indent=1) + "\n")
    os.replace(file.name, path)
    _read.cache_clear()


def measure(run: Callable[[Config], Any], configs: tuple[Config, ...], synchronise: Callable[[], None],
            repeats: int = 5) -> list[Trial]:
    """Each configuration's median time over ``repeats`` calls, taken in turns after one call that compiles
    and one that may capture. A configuration that does not fit the device gets a reason instead of a time."""
    live, trials = [], []
    for config in configs:
        try:
            for _ in range(2):
                run(config)
            synchronise()
            live.append((config, []))
        except (triton.runtime.errors.OutOfResources, triton.CompilationError) as error:
            trials.append(Trial(config, None, str(error).strip().splitlines()[0]))
    for _ in range(repeats):
        for config, times in live:
            synchronise()
            started = time.perf_counter()
            run(config)
            synchronise()
            times.append(time.perf_counter() - started)
    return [Trial(config, statistics.median(times)) for config, times in live] + trials


def fastest(trials: list[Trial]) -> Trial:
    """The trial with the least time. Raises `RuntimeError` if none has one."""
    timed = [trial for trial in trials if trial.seconds is not None]
    if not timed:
        raise RuntimeError("no configuration runs here: " + "; ".join(t.reason for t in trials))
    return min(timed, key=lambda trial: trial.seconds)
