"""The search over a stream of candidates: a running best of each state, or a running best share of
which one is chosen at the end."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from swg_fast.method.networks import EnsembleQ
from swg_fast.policy.backends.job import Candidates, SamplingJob
from swg_fast.policy.model import Model
from swg_fast.policy.ranking_names import RANKINGS
from swg_fast.policy.rankings.ranked import Ranked, Spread, Support, scores_of
from swg_fast.reference import philox
from swg_fast.reference.resample import keep, keep_mean


def opinions(network: EnsembleQ | None, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """What each network of a critic or ranker says of actions [b, n, A] in states [b, S]: [members, b, n]."""
    assert network is not None  # a job that needs one is refused without
    b, n, _ = actions.shape
    # Beside the state there may be the code of a weight function, which is the score network's alone.
    repeated = states[:, :network.state_dim].repeat_interleave(n, dim=0)
    return network(repeated, actions.reshape(b * n, -1)).view(-1, b, n)


def asked(network: EnsembleQ | None, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The lowest of these opinions, [b, n]."""
    return opinions(network, states, actions).amin(dim=0)


def spread(network: EnsembleQ | None, states: torch.Tensor, actions: torch.Tensor) -> Spread:
    """The mean of these opinions and their standard deviation, [b, n] each."""
    said = opinions(network, states, actions)
    return Spread(said.mean(dim=0), said.std(dim=0, correction=0))


def ensemble_of(model: Model, select: str) -> EnsembleQ | None:
    """The networks whose spread the ranking ``select`` asks for; None where it asks for none."""
    needs = RANKINGS[select].needs
    return model.ranker if "ranker" in needs else model.critics if "critics" in needs else None


class Judge(Protocol):
    """A backend, as far as it judges finished candidates z [b, n, D] of some states, the first of them at a
    place: [b, n] each."""

    def expected(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> torch.Tensor:
        """An estimate of E[w | a, s]."""

    def support(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> Support:
        """How near they are to the data."""


class Pool(NamedTuple):
    """Candidates of b states that are still in the race: z [b, m, D], and of each [b, m] the weight, the
    index, and what else was predicted of it (None where the search needs none)."""

    z: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    expected: torch.Tensor | None = None
    critic: torch.Tensor | None = None
    error: torch.Tensor | None = None
    supported: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    deviation: torch.Tensor | None = None

    def take(self, at: torch.Tensor) -> Pool:
        """Places ``at`` [b, k] of every state."""
        rows = torch.arange(len(at), device=at.device)[:, None]
        return Pool(*(None if part is None else part[rows, at] for part in self))

    def joined(self, other: Pool) -> Pool:
        """These candidates, then the others."""
        pairs: Any = zip(self, other, strict=True)
        return Pool(*(None if a is None else torch.cat([a, b], dim=1) for a, b in pairs))


class Search:
    """One search for the states of a slice: `add` chunks in order, then `best`, or `shortlisted`.

    It holds `SearchPlan.pool_size` candidates a state: memory for their z and a few numbers each. Ties go to
    the lowest index.
    """

    def __init__(self, job: SamplingJob, states: slice, model: Model, judge: Judge) -> None:
        self.job, self.states, self.model, self.judge = job, states, model, judge
        self.together = RANKINGS[job.plan.ranks_by].together
        self.filters = job.config.keep_share < 1
        self.averaged = job.config.averaged
        self.size = job.plan.pool_size
        self.pool: Pool | None = None

    def add(self, first: int, found: Candidates) -> Candidates:
        """The next chunk, whose first candidate has this place; with its expected weights where these are
        asked of something else than the backend that drew it."""
        n, job = found.z.shape[1], self.job
        states, actions = job.states[self.states], found.z[..., :-1]
        judged = job if job.teacher is None else job.teacher
        if job.plan.expects == "ranker":
            found = found._replace(expected=asked(self.model.ranker, states, actions))
        elif job.plan.expects is not None and job.teacher is not None:
            found = found._replace(expected=self.judge.expected(judged, self.states, first, found.z))
        indices = job.indices(self.states, torch.arange(first, first + n, device=found.z.device))
        critic, support, members = None, (None, None), (None, None)
        if "critic" in RANKINGS[job.plan.ranks_by].needs:
            critic = asked(self.model.critic, states, actions)
        if (ensemble := ensemble_of(self.model, job.plan.ranks_by)) is not None:
            members = spread(ensemble, states, actions)
        if job.plan.support is not None:
            support = self.judge.support(judged, self.states, first, found.z)
        self.hold(Pool(found.z, found.weights, indices, found.expected, critic, *support,
                       *members))
        return found

    def hold(self, pool: Pool) -> None:
        """Takes these candidates in, and drops those that are out of the race."""
        if self.together and not self.filters:
            self.pool = pool if self.pool is None else self.pool.joined(pool)
            return
        score = self._filtered if self.filters else self._ranked
        if self.size == 1:
            pool = pool.take(keep(score(pool))[:, None])
        if self.pool is not None:
            pool = self.pool.joined(pool)
        if self.pool is not None or self.size > 1:
            # Stable, and lower indices stand first: ties go to them.
            pool = pool.take(score(pool).sort(dim=1, descending=True, stable=True).indices[:, :self.size])
        self.pool = pool

    def best(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each state the chosen action [b, A], its weight [b] and its index [b]. Where the best are
        averaged, action and weight are their means, and the index is the first one's."""
        pool = self.pool
        if self.filters or self.together:
            pool = pool.take(pool.indices.argsort(dim=1))
        if self.averaged > 1:
            scores = self._ranked(pool)
            parts = torch.cat([pool.z[..., :-1], pool.weights[..., None]], dim=2)
            mean = keep_mean(scores, parts, self.averaged)
            return mean[:, :-1], mean[:, -1], pool.take(keep(scores)[:, None]).indices[:, 0]
        if self.filters or self.together:
            pool = pool.take(keep(self._ranked(pool))[:, None])
        return pool.z[:, 0, :-1], pool.weights[:, 0], pool.indices[:, 0]

    def shortlisted(self) -> torch.Tensor:
        """Which candidates of each state are on the shortlist, rising: [b, K]."""
        return self.pool.indices.sort(dim=1).values

    def _filtered(self, pool: Pool) -> torch.Tensor:
        """What a share of a pool's candidates [b, m] is kept by."""
        found = -pool.error if self.job.config.keep_by == "support" else pool.expected
        return torch.where(found.isnan(), -torch.inf, found)

    def _ranked(self, pool: Pool) -> torch.Tensor:
        """What a pool's candidates [b, m] are chosen by."""
        job, plan = self.job, self.job.plan

        def noise() -> torch.Tensor:
            words = job.state_indices[self.states][:, None]
            return philox.gumbel(job.seed, pool.indices, words, plan.table.trained_steps)

        support = ensemble = None
        if pool.error is not None and pool.supported is not None:
            support = Support(pool.error, pool.supported)
        if pool.mean is not None and pool.deviation is not None:
            ensemble = Spread(pool.mean, pool.deviation)
        found = scores_of(plan.ranks_by, Ranked(job.config, plan.selection_temperature, pool.weights, noise,
                                                pool.expected, pool.critic, support, ensemble))
        return torch.where(found.isnan(), -torch.inf, found)
