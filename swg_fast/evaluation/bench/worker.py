"""A process that measures one contender, so that no other library's threads or memory are in it."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.evaluation.bench.contenders import Contender, products, runner

Message = tuple[Any, ...]


def model_parts(policy: Any) -> dict[str, Any]:
    """What a worker builds the policy anew from."""
    network = policy.model.network
    return {"config": network.config(), "betas": policy.model.schedule.betas.numpy(),
            "state": {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()},
            "device": str(policy.device), "threads": torch.get_num_threads()}


def serve(connection: Connection, contender: Contender, parts: dict[str, Any], rho: float) -> None:
    """Answers ("begin", states, N) with the first call's seconds, ("turn", seconds) with the times of
    calls for that long, ("end",) with the size's peak bytes, beyond what the process held before any
    call; an exception with its text."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = torch.device(parts["device"])
    try:
        torch.set_num_threads(parts["threads"])
        run = _decision(contender, parts, device, rho)
        call, seed, idle = None, 0, _reset_peak(device)
        while True:
            message = connection.recv()
            if message[0] == "begin":
                call = _prepared(run, *message[1:])
                _reset_peak(device)
                connection.send(_timed(call, 0, device))
            elif message[0] == "turn":
                times: list[float] = []
                while not times or sum(times) < message[1]:
                    seed += 1
                    times.append(_timed(call, seed, device))
                connection.send(times)
            elif message[0] == "end":
                connection.send(_peak(device) - idle)
            else:
                return
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return
    except Exception:
        connection.send(RuntimeError(f"{contender.name} {contender.dtype}: {traceback.format_exc()}"))


def _decision(contender: Contender, parts: dict[str, Any], device: torch.device, rho: float) -> Any:
    from swg_fast.method.networks import ScoreNetwork
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.policy import Policy

    if contender.name == "products":
        multiply = products(contender.dtype, device, parts["config"]["hidden_dim"])
        return lambda states, n, seed: multiply()
    network = ScoreNetwork(**parts["config"])
    network.load_state_dict({name: torch.from_numpy(value) for name, value in parts["state"].items()})
    policy = Policy(network, NoiseSchedule("bench", torch.from_numpy(parts["betas"])), device=device)
    return runner(contender, policy, rho)


def _prepared(run: Any, states: np.ndarray, n: int) -> Callable[[int], Any]:
    return lambda seed: run(states, n, seed)


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
    """Starts the peak anew and returns the bytes held now. On a CPU they are the process's own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    """Peak bytes since `_reset_peak`: of torch's allocator on CUDA (JAX has its own), of the process on
    a CPU."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    path = Path("/proc/self/status")
    if not path.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in path.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
