"""The measurement: for each size all contenders take turns, and medians are compared."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import device_name
from swg_fast.common.interrupts import shielded
from swg_fast.evaluation.bench.contenders import PEERS, Contender, find, products_flops
from swg_fast.evaluation.bench.worker import model_parts, serve
from swg_fast.policy.policy import Policy

TURN_SECONDS = 0.4  # a turn repeats a short decision for this long
SETTLE_SECONDS = 0.02  # between turns: threads of the last contender stop spinning


class Worker:
    """A contender's process, asked one thing at a time."""

    def __init__(self, contender: Contender, parts: dict[str, Any], rho: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.contender = contender
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, contender, parts, rho), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *message: Any) -> Any:
        """The answer; `UsageError` with the worker's own account where it failed."""
        self.tell(*message)
        return self.answer()

    def tell(self, *message: Any) -> None:
        """A question whose answer is fetched later."""
        with suppress(BrokenPipeError):  # a worker that failed has left its account and gone
            self.connection.send(message)

    def answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise UsageError(f"the process of {self.contender.name} {self.contender.dtype} died "
                             "(out of memory?); try fewer --candidates") from error
        if isinstance(answer, Exception):
            raise UsageError(str(answer))
        return answer

    def close(self) -> None:
        """Ends the process, by force where it does not answer."""
        with suppress(OSError):
            self.connection.send(("stop",))
        self.process.join(2)
        self.process.terminate()
        self.process.join()


@contextmanager
def _workers(contenders: list[Contender], parts: dict[str, Any], rho: float) -> Any:
    with ExitStack() as stack:
        workers = []
        with shielded():
            for contender in contenders:
                workers.append(Worker(contender, parts, rho))
                stack.callback(workers[-1].close)
        yield workers


def run_bench(policy: Policy, *, candidates: list[int], n_states: list[int], backends: list[str],
              dtypes: list[str] | None, guidance_scale: float = 5.0, repeats: int = 4,
              max_seconds: float = 5.0, swg_jax: str | None = None, progress: bool = True) -> dict[str, Any]:
    """Measures every backend and peer for each size; see `swg-fast bench --help`.

    Each contender has a process of its own. All of a size take turns, ``repeats`` rounds, so that a
    drift of the machine meets all of them; the products alone, the ceiling, take turns with them. The
    first call of each is apart, as its warm-up. A contender whose single decision would take more than
    ``max_seconds`` is left out of that size, and said so under "left_out".
    """
    from tqdm import tqdm

    contenders = find(policy, backends, dtypes, swg_jax)
    ceilings = [Contender("products", kind) for kind in sorted({c.dtype for c in contenders})]
    network, device = policy.model.network, policy.device
    work = products_flops(device, network.hidden_dim)
    together = device.type == "cuda"  # where the processor only compiles, for a minute each
    rng = np.random.default_rng(0)
    sizes = [(b, n) for b in n_states for n in candidates]
    rows, left_out, rates = [], [], {}
    failed: set[Worker] = set()
    ceiling_times: dict[str, list[float]] = {c.dtype: [] for c in ceilings}
    with _workers(contenders + ceilings, model_parts(policy), guidance_scale) as workers, \
            tqdm(total=len(sizes) * repeats, desc="turns", unit="turn", disable=not progress) as bar:
        for b, n in sizes:
            states = rng.standard_normal((b, policy.state_dim)).astype(np.float32)
            live: list[tuple[Worker, float, list[list[float]]]] = []  # with the times of each turn
            asked: list[Worker] = []
            for worker in workers:
                name = (worker.contender.name, worker.contender.dtype)
                if name in rates and b * n / rates[name] > max_seconds:
                    left_out.append({"backend": name[0], "dtype": name[1], "n_states": b, "n_candidates": n,
                                     "seconds": b * n / rates[name],
                                     "reason": "one decision would take that long"})
                    continue
                if worker not in failed:
                    asked.append(worker)
                    if together:
                        worker.tell("begin", states, n)
            for worker in asked:
                name = (worker.contender.name, worker.contender.dtype)
                bar.set_postfix_str(f"{b} x {n}: warming up {' '.join(name)}")
                try:
                    first = worker.answer() if together else worker.ask("begin", states, n)
                    live.append((worker, first, []))
                except UsageError as error:
                    if name[0] not in PEERS:
                        raise
                    failed.add(worker)  # a peer that does not run here does not stop the others
                    left_out.append({"backend": name[0], "dtype": name[1], "n_states": b, "n_candidates": n,
                                     "seconds": None, "reason": str(error).strip().splitlines()[-1]})
            bar.set_postfix_str(f"{b} x {n}")
            if all(worker.contender.name == "products" for worker, _, _ in live):
                bar.update(repeats)
                continue
            for _ in range(repeats):
                for worker, _, times in live:
                    times.append(worker.ask("turn", TURN_SECONDS))
                    time.sleep(SETTLE_SECONDS)
                bar.update()
            for worker, warmup, times in live:
                contender, peak = worker.contender, worker.ask("end")
                if contender.name == "products":
                    ceiling_times[contender.dtype] += chain(*times)
                    continue
                rows.append(_row(contender, device, b, n, warmup, list(chain(*times)), peak))
                rates[contender.name, contender.dtype] = rows[-1]["candidates_per_second"]
                base = next((t for w, _, t in live if w.contender.name == "reference"), None)
                rows[-1]["speedup_over_reference"] = _speedup(base, times) if base else None
    ceiling = {kind: work / statistics.median(times) for kind, times in ceiling_times.items()}
    flops = _flops(policy)
    for row in rows:
        rate = row["candidates_per_second"] * flops
        row |= {"gflops": rate / 1e9, "percent_of_ceiling": 100 * rate / ceiling[row["dtype"]]}
    return {"results": rows, "left_out": left_out,
            "ceiling_gflops": {kind: value / 1e9 for kind, value in ceiling.items()},
            "network": network.config(), "num_steps": policy.model.schedule.num_steps,
            "guidance_scale": guidance_scale, "repeats": repeats, "threads": torch.get_num_threads(),
            "device_name": device_name(device)}


def _row(contender: Contender, device: torch.device, b: int, n: int, warmup: float, times: list[float],
         peak: int) -> dict[str, Any]:
    seconds = statistics.median(times)
    low, high = np.quantile(times, [0.25, 0.75])
    return {"backend": contender.name, "dtype": contender.dtype, "device": str(device), "n_states": b,
            "n_candidates": n, "candidates_per_second": b * n / seconds, "milliseconds": 1e3 * seconds,
            "milliseconds_quartiles": [1e3 * float(low), 1e3 * float(high)], "calls": len(times),
            "first_call_seconds": warmup, "peak_bytes": peak}


def _speedup(reference: list[list[float]], times: list[list[float]]) -> float:
    """How many times the reference's speed: of each turn, and the median of those. What slows the
    machine for a while slows both sides of a turn's ratio."""
    return statistics.median(statistics.median(base) / statistics.median(mine)
                             for base, mine in zip(reference, times, strict=True))


def _flops(policy: Policy) -> int:
    from swg_fast.kernels.shared.packing import pack

    return pack(policy.model.network, policy.model.schedule.num_steps).flops_per_candidate(True)
