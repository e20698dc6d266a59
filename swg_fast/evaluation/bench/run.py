"""The measurement: for each size all contenders take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Any

import numpy as np
import torch

from swg_fast.common.children import Child, ChildDied, Failure
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import device_name
from swg_fast.common.interrupts import shielded
from swg_fast.evaluation.bench.contenders import PEERS, Contender, find, products_flops
from swg_fast.evaluation.bench.worker import Begin, End, Parts, Turn, model_parts, serve
from swg_fast.kernels.shared.packing import pack
from swg_fast.policy.policy import Policy

GUIDANCE = 5.0  # the guidance scale that is measured where none is named
TURN_SECONDS = 0.4  # a turn repeats a short decision for this long
SETTLE_SECONDS = 0.02  # between turns, in which the last contender's threads stop spinning


@dataclass(frozen=True)
class Row:
    """A contender at one size. The rate and ``milliseconds`` are of the median call, ``peak_bytes`` beyond
    what its process held before; the speedup is None where eager PyTorch was not measured."""

    backend: str
    dtype: str
    device: str
    n_states: int
    n_candidates: int
    candidates_per_second: float
    milliseconds: float
    milliseconds_quartiles: list[float]
    calls: int
    first_call_seconds: float
    peak_bytes: int
    speedup_over_reference: float | None
    gflops: float
    percent_of_ceiling: float


@dataclass(frozen=True)
class LeftOut:
    """A contender that was not measured at one size; ``seconds`` is what a decision would have taken, None
    for a peer that failed."""

    backend: str
    dtype: str
    n_states: int
    n_candidates: int
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Bench:
    """All that was measured. ``ceiling_gflops`` is the rate of the products alone, by compute type; num_steps
    the network's passes for a candidate, each with its way back but for a student's."""

    results: list[Row]
    left_out: list[LeftOut]
    ceiling_gflops: dict[str, float]
    network: dict[str, Any]
    num_steps: int
    guidance_scale: float
    repeats: int
    threads: int
    device_name: str


class Worker:
    """A contender's process, which answers one message (`worker.serve`) at a time."""

    def __init__(self, contender: Contender, parts: Parts) -> None:
        self.contender = contender
        self.child = Child(serve, contender, parts)

    def ask(self, message: Begin | Turn | End) -> Any:
        """Sends ``message`` and waits for the answer, as `answer` does."""
        self.tell(message)
        return self.answer()

    def tell(self, message: Begin | Turn | End) -> None:
        """Sends ``message``; `answer` fetches the answer later."""
        with suppress(ConnectionError):  # a worker that failed has sent its error and ended
            self.child.pipe.send(message)

    def answer(self) -> Any:
        """The next answer. Raises `UsageError` where the worker failed or died."""
        try:
            answer = self.child.answer()
        except ChildDied as error:
            raise UsageError(f"the process of {self.contender.name} {self.contender.dtype} died "
                             "(out of memory?); try fewer --candidates") from error
        if isinstance(answer, Failure):
            raise UsageError(f"{self.contender.name} {self.contender.dtype}: {answer.message}")
        return answer


@contextmanager
def _workers(contenders: list[Contender], parts: Parts) -> Any:
    with ExitStack() as stack:
        workers = []
        with shielded():
            for contender in contenders:
                workers.append(Worker(contender, parts))
                stack.callback(workers[-1].child.end)
        yield workers


@dataclass
class Timed:
    """A worker at one size: seconds of its first call and of each call of each turn."""

    worker: Worker
    n_states: int
    n_candidates: int
    first_call: float
    turns: list[list[float]] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def contender(self) -> Contender:
        return self.worker.contender

    @property
    def calls(self) -> list[float]:
        return list(chain(*self.turns))

    @property
    def rate(self) -> float:
        """Candidates a second."""
        return self.n_states * self.n_candidates / statistics.median(self.calls)


class _Race:
    """Workers that take turns, size after size."""

    def __init__(self, workers: list[Worker], max_seconds: float, warm_together: bool, bar: Any) -> None:
        self.workers, self.max_seconds = workers, max_seconds
        self.warm_together, self.bar = warm_together, bar
        self.rates: dict[Contender, float] = {}  # of the last size
        self.failed: set[Worker] = set()
        self.left_out: list[LeftOut] = []

    def run(self, states: np.ndarray, n: int, repeats: int) -> list[Timed]:
        """Measures ``n`` candidates of each of ``states`` [B, S]; empty where only ceilings are left."""
        live = self._warm_up(states, n)
        if all(one.contender.name == "products" for one in live):
            self.bar.update(repeats)
            return []
        for _ in range(repeats):
            for one in live:
                one.turns.append(one.worker.ask(Turn(TURN_SECONDS)))
                time.sleep(SETTLE_SECONDS)
            self.bar.update()
        for one in live:
            one.peak_bytes = one.worker.ask(End())
            if one.contender.name != "products":
                self.rates[one.contender] = one.rate
        return live

    def _warm_up(self, states: np.ndarray, n: int) -> list[Timed]:
        """The workers that run this size, after their first call of it."""
        live, asked, size = [], [], (len(states), n)
        for worker in self.workers:
            seconds = len(states) * n / self.rates.get(worker.contender, np.inf)
            if seconds > self.max_seconds:
                self._leave_out(worker, size, seconds, "one decision would take that long")
            elif worker not in self.failed:
                asked.append(worker)
                if self.warm_together:
                    worker.tell(Begin(states, n))
        for worker in asked:
            name = worker.contender.name
            self.bar.set_postfix_str(f"{len(states)} x {n}: warming up {name} {worker.contender.dtype}")
            try:
                first = worker.answer() if self.warm_together else worker.ask(Begin(states, n))
                live.append(Timed(worker, *size, first))
            except UsageError as error:
                if name not in PEERS:
                    raise
                self.failed.add(worker)  # the others are still measured
                self._leave_out(worker, size, None, str(error))
        self.bar.set_postfix_str(f"{len(states)} x {n}")
        return live

    def _leave_out(self, worker: Worker, size: tuple[int, int], seconds: float | None, reason: str) -> None:
        contender = worker.contender
        self.left_out.append(LeftOut(contender.name, contender.dtype, *size, seconds, reason))


def run_bench(policy: Policy, *, candidates: list[int], n_states: list[int], backends: list[str],
              dtypes: list[str] | None, guidance_scale: float | None = None, repeats: int = 4,
              max_seconds: float = 5.0, swg_jax: str | None = None, progress: bool = True) -> Bench:
    """Measures every backend and peer for each size; see `swg-fast bench --help`.

    Of a policy that holds teacher and student the teacher is measured, of a student alone its calls, which
    ``reference`` makes in eager PyTorch. ``guidance_scale`` None is `GUIDANCE`, or what the student alone has
    learnt; `UsageError` for a scale that it has not.

    Each contender has a process of its own. For each size all contenders, and the products alone (the
    ceiling), take ``repeats`` turns each, so that a slow moment of the machine affects all of them. The
    first call of each warms it up and is timed apart. A contender whose decision would take more than
    ``max_seconds`` is left out of that size.
    """
    from tqdm import tqdm

    walk = None if policy.model.has_diffusion else policy.model.walk
    if guidance_scale is None:
        guidance_scale = GUIDANCE if walk is None else walk.default_scale
    if walk is not None:
        walk.code(guidance_scale)
    contenders = find(policy, backends, dtypes, swg_jax)
    ceilings = [Contender("products", kind) for kind in sorted({c.dtype for c in contenders})]
    device = policy.device
    rng = np.random.default_rng(0)
    sizes = list(product(n_states, candidates))
    found = []
    with _workers(contenders + ceilings, model_parts(policy, guidance_scale)) as workers, \
            tqdm(total=len(sizes) * repeats, desc="turns", unit="turn", disable=not progress) as bar:
        # On CUDA a warm-up is a minute of compiling on the processor.
        race = _Race(workers, max_seconds, device.type == "cuda", bar)
        for b, n in sizes:
            states = rng.standard_normal((b, policy.model.network.state_dim)).astype(np.float32)
            found.append(race.run(states, n, repeats))
    work = products_flops(device, policy.model.network.hidden_dim)
    ceiling = {c.dtype: work / statistics.median(chain(*(one.calls for size in found for one in size
                                                         if one.contender == c))) for c in ceilings}
    calls = policy.model.schedule.num_steps if walk is None else len(walk.steps)
    flops = pack(policy.model.network, calls).flops_per_candidate(guided=walk is None)
    return Bench(_rows(found, ceiling, flops, device), race.left_out,
                 {kind: value / 1e9 for kind, value in ceiling.items()}, policy.model.network.config(),
                 calls, guidance_scale, repeats, torch.get_num_threads(), device_name(device))


def _rows(found: list[list[Timed]], ceiling: dict[str, float], flops: int, device: torch.device) -> list[Row]:
    """The measured sizes as rows; ``flops`` are a candidate's."""
    rows = []
    for size in found:
        eager = next((one.turns for one in size if one.contender.name == "reference"), None)
        for one in (one for one in size if one.contender.name != "products"):
            quartiles = np.quantile(one.calls, [0.25, 0.75])
            rows.append(Row(
                one.contender.name, one.contender.dtype, str(device), one.n_states, one.n_candidates,
                one.rate, 1e3 * statistics.median(one.calls), (1e3 * quartiles).tolist(), len(one.calls),
                one.first_call, one.peak_bytes, _speedup(eager, one.turns) if eager else None,
                one.rate * flops / 1e9, 100 * one.rate * flops / ceiling[one.contender.dtype]))
    return rows


def _speedup(reference: list[list[float]], times: list[list[float]]) -> float:
    """The median over turns of how many times faster ``times`` are than the reference. What slows the
    machine for a while slows both sides of a turn's ratio."""
    return statistics.median(statistics.median(base) / statistics.median(mine)
                             for base, mine in zip(reference, times, strict=True))
