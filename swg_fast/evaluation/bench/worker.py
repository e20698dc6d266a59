"""A process that measures one contender, without the threads and the memory of other libraries."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from swg_fast.evaluation.bench.contenders import Contender, Run, products, runner
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import ENTRY, StudentWalk
from swg_fast.policy.policy import Policy


class Begin(NamedTuple):
    """Make the first call for states [B, S] and N candidates of each; answered with its seconds."""

    states: np.ndarray
    n_candidates: int


class Turn(NamedTuple):
    """Repeat the call for so many seconds; answered with the seconds of each call."""

    seconds: float


class End(NamedTuple):
    """A size is over; answered with its peak bytes beyond what the process held before any call."""


@dataclass(frozen=True)
class Parts:
    """What a worker builds the policy from. walk: of a student alone, at one guidance scale, so that the
    network's whole input beside the latent is a state."""

    config: dict[str, Any]
    betas: np.ndarray
    state: dict[str, np.ndarray]  # of the network
    device: str
    threads: int
    guidance_scale: float
    walk: StudentWalk | None


def model_parts(policy: Policy, guidance_scale: float) -> Parts:
    network, walk = policy.model.network, None
    if policy.model.walk is not None and not policy.model.has_diffusion:
        walk = replace(policy.model.walk, guidance_scale=(guidance_scale, guidance_scale))
    return Parts(network.config(), policy.model.schedule.betas.numpy(),
                 {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()},
                 str(policy.device), torch.get_num_threads(), guidance_scale, walk)


def serve(connection: Connection, contender: Contender, parts: Parts) -> None:
    """Answers messages; an error ends the process."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = torch.device(parts.device)
    torch.set_num_threads(parts.threads)
    run = _decision(contender, parts, device)
    call, seed, idle = None, 0, _reset_peak(device)
    while True:
        message = connection.recv()
        if isinstance(message, Begin):
            call = partial(run, *message)
            _reset_peak(device)
            connection.send(_timed(call, 0, device))
        elif isinstance(message, Turn):
            times: list[float] = []
            while not times or sum(times) < message.seconds:
                seed += 1
                times.append(_timed(call, seed, device))
            connection.send(times)
        else:
            connection.send(_peak(device) - idle)


def _decision(contender: Contender, parts: Parts, device: torch.device) -> Run:
    if contender.name == "products":
        multiply = products(contender.dtype, device, parts.config["hidden_dim"])
        return lambda states, n, seed: multiply()
    network = ScoreNetwork(**parts.config)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in parts.state.items()})
    card = {ENTRY: {"walk": asdict(parts.walk)}} if parts.walk is not None else {}
    policy = Policy(network, NoiseSchedule("bench", torch.from_numpy(parts.betas)), card=card, device=device)
    return runner(contender, policy, parts.guidance_scale)


def _timed(call: Callable[[int], Any], seed: int, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    call(seed)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> int:
    """Resets the peak and returns the bytes held now: torch's on CUDA, the process's on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    """Peak bytes since `_reset_peak`: torch's on CUDA (JAX has its own allocator), the process's on a CPU."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    path = Path("/proc/self/status")
    if not path.exists():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
    line = next(line for line in path.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
