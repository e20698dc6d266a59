"""Candidates sharded over Ray actors: each searches a range of indices, and the best of all is kept.

A candidate's noise depends on its index alone, so shards keep the same candidate as one process. Each shard
sends one candidate of each state back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from swg_fast.common.errors import UsageError
from swg_fast.policy.backends.job import Samples, SamplingJob
from swg_fast.policy.backends.search import Pool, Search
from swg_fast.policy.backends.streaming import Backend
from swg_fast.policy.model import Model
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.policy.sampling import card_entry
from swg_fast.policy.surroundings import own_surroundings
from swg_fast.sweep.ray_start import connected, fetch

ALIGN = 128  # ranges smaller than a chunk begin at a multiple of this


def ranges(n_candidates: int, shards: int, unit: int) -> list[tuple[int, int]]:
    """(first, last + 1) of each shard that gets candidates: nearly equal numbers of whole units."""
    units = -(-n_candidates // unit)
    shards = min(shards, units)
    edges = [min(n_candidates, unit * (units * i // shards)) for i in range(shards + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def unit_of(job: SamplingJob, shards: int, chunk: int) -> int:
    """How many candidates always stay together: one process's chunk, or fewer where there is no chunk for
    every shard; always whole roots."""
    leaves = job.plan.tree.leaves if job.plan.tree is not None else 1
    whole = max(chunk, leaves) // leaves * leaves
    if job.config.n_candidates >= shards * whole:
        return whole
    step = ALIGN * leaves
    return max(leaves, min(whole, -(-job.config.n_candidates // (shards * step)) * step))


@own_surroundings()
def search_range(backend: Backend, job: SamplingJob, first: int, last: int) -> Pool:
    """The best of candidates first..last-1 of every state, drawn in the backend's chunks."""
    leaves = job.plan.tree.leaves if job.plan.tree is not None else 1
    chunk = backend.held(job)
    count = min(last - first, chunk // leaves * leaves)
    group = max(1, chunk // (last - first))
    pools = []
    for i in range(0, len(job.states), group):
        states = slice(i, min(i + group, len(job.states)))
        search = Search(job, states, backend.model, backend)
        for at in range(first, last, count):
            search.add(at, backend.candidates(job, states, at, min(count, last - at)))
        pools.append(search.pool)
    return Pool(*(None if parts[0] is None else torch.cat(parts).cpu() for parts in zip(*pools, strict=True)))


@own_surroundings()
def merge(job: SamplingJob, pools: list[Pool], backend: Backend) -> Samples:
    """The kept candidates of shards' pools, given in the order of their ranges: ties go to the lowest
    index, as in one process."""
    search = Search(job, slice(0, len(job.states)), backend.model, backend)
    for pool in pools:
        search.hold(Pool(*(None if part is None else part.to(job.states.device) for part in pool)))
    return Samples(*search.best())


class Asked(NamedTuple):
    """The arguments of `Policy.backend`."""

    name: str
    dtype: str
    student: bool


class Shard:
    """An actor's state: the model on its device, packed once for each backend and compute type."""

    def __init__(self, model: Model, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.policy = Policy(**model.parts(), device=device)

    def search(self, job: SamplingJob, asked: Asked, first: int, last: int) -> Pool:
        """`search_range` on this actor's device, by the backend that is asked for."""
        device = self.policy.device
        job = replace(job, states=job.states.to(device), state_indices=job.state_indices.to(device))
        return search_range(self.policy.backend(*asked), job, first, last)


class ShardedBackend(Backend):
    """A backend whose `run` hands ranges of candidates to the actors and keeps the best of all."""

    def __init__(self, inner: Backend, asked: Asked, ray: Any, actors: list[Any]) -> None:
        super().__init__(inner.model, inner.dtype, inner.device)
        self.name = f"{inner.name} on {len(actors)} actors"
        self.inner, self.asked, self.ray, self.actors = inner, asked, ray, actors

    def __reduce__(self) -> Any:
        return self.inner.__reduce__()  # as of a `ShardedPolicy`, below

    def held(self, job: SamplingJob) -> int:
        return self.inner.held(job)

    def bytes_each(self, job: SamplingJob) -> int:
        return self.inner.bytes_each(job)

    def run(self, job: SamplingJob, judge: Backend | None = None) -> Samples:
        if job.return_candidates:
            raise UsageError("shards return one candidate of each state; leave out return_candidates")
        if job.teacher is not None:
            raise UsageError("shards draw by one network, and here a student's teacher has to judge; use "
                             "select='max_weight', or no shards")
        if job.draws_one:
            return self.inner.run(job)  # only candidate 0 is needed
        unit = unit_of(job, len(self.actors), job.chunk or self.inner.default_chunk())
        here = replace(job, states=job.states.cpu(), state_indices=job.state_indices.cpu())
        shared = self.ray.put(here)
        parts = ranges(job.config.n_candidates, len(self.actors), unit)
        pools = fetch(self.ray, [actor.search.remote(shared, self.asked, *part)
                                 for actor, part in zip(self.actors, parts, strict=False)])
        return merge(job, pools, self.inner)

    def shortlist(self, job: SamplingJob) -> torch.Tensor:
        raise UsageError(f"finish={job.config.finish}: shards draw by one network, and a teacher cannot "
                         "finish there; leave out finish, or use no shards")


class ShardedPolicy(Policy):
    """A `Policy` whose candidates are drawn by Ray actors; `sharded` makes one. It is used like any other."""

    def __init__(self, policy: Policy, ray: Any, actors: list[Any]) -> None:
        super().__init__(**policy.model.parts(), device=policy.device,
                         defaults=card_entry(policy.config, policy.execution))
        self.ray, self.actors = ray, actors

    def __reduce__(self) -> Any:
        """A copy, or what is unpickled, is the policy by itself: actors belong to one process."""
        return _by_itself, ({name: value for name, value in self.__getstate__().items()
                             if name not in ("ray", "actors")},)

    def backend(self, name: str = "auto", dtype: str | None = None, student: bool = False) -> Backend:
        """A backend that distributes the candidates over the actors' backends."""
        asked = Asked(name, dtype or self.execution.dtype, student)
        return ShardedBackend(super().backend(*asked), asked, self.ray, self.actors)


def _by_itself(state: dict[str, Any]) -> Policy:
    policy = Policy.__new__(Policy)
    vars(policy).update(state)
    return policy


@contextmanager
def sharded(policy: Policy | str, shards: int, *, address: str | None = None, cpus: float = 1,
            gpus: float = 0, threads: int = 1) -> Iterator[ShardedPolicy]:
    """``policy``, or the one of that name, with its candidates shared by ``shards`` actors that have ``cpus``
    and ``gpus`` each, on this machine or on the Ray cluster at ``address``.

    The kept candidates are those of one process on the same kind of device: bit for bit where every shard
    has at least a chunk of candidates, up to rounding otherwise. N may be up to 2**32, the range of the
    noise's candidate word.

    Raises `UsageError` where Ray is missing or has no room for the actors.
    """
    policy = load_policy(policy) if isinstance(policy, str) else policy
    with connected(address) as ray:
        for kind, each in (("CPU", cpus), ("GPU", gpus)):
            have = ray.cluster_resources().get(kind, 0)
            if shards * each > have:
                raise UsageError(f"{shards} shards of {each:g} {kind}(s), and Ray has {have:g}; use fewer")
        kind = ray.remote(num_cpus=cpus, num_gpus=gpus)(Shard)
        model = ray.put(policy.model.copied(torch.device("cpu")))
        actors = [kind.remote(model, "cuda" if gpus else "cpu", threads) for _ in range(shards)]
        yield ShardedPolicy(policy, ray, actors)
