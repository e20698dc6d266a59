"""The search over a stream of candidates: a running best of each state, or a running best share of
which one is chosen at the end."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from swg_fast.method.networks import TwinQ
from swg_fast.policy.backends.job import Candidates, SamplingJob
from swg_fast.policy.model import Model
from swg_fast.reference import philox
from swg_fast.reference.resample import keep


def asked(network: TwinQ | None, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """What critic or ranker say of actions [b, n, A] in states [b, S]: the lower of two, [b, n]."""
    assert network is not None  # a job that needs one is refused without
    b, n, _ = actions.shape
    # Beside the state there may be the code of a weight function, which is the score network's alone.
    repeated = states[:, :network.state_dim].repeat_interleave(n, dim=0)
    return network.minimum(repeated, actions.reshape(b * n, -1)).view(b, n)


class Pool(NamedTuple):
    """Candidates of b states that are still in the race: what they are ranked by, which they are, z
    [b, m, D] and their weights; [b, m] all but z."""

    scores: torch.Tensor
    indices: torch.Tensor
    z: torch.Tensor
    weights: torch.Tensor

    def take(self, at: torch.Tensor) -> Pool:
        """Places ``at`` [b, k] of every state."""
        rows = torch.arange(len(at), device=at.device)[:, None]
        return Pool(*(part[rows, at] for part in self))


class Search:
    """One search for the states of a slice: `add` chunks in order, then `best`, or `shortlisted`.

    A share of the candidates is kept by expected weight before one is chosen, or some for a shortlist: memory
    for their z and three numbers each. Else it is one candidate a state. Ties go to the lowest index.
    """

    def __init__(self, job: SamplingJob, states: slice, model: Model) -> None:
        self.job, self.states, self.model = job, states, model
        share = job.config.keep_share
        self.size = job.plan.shortlist or (math.ceil(share * job.config.n_candidates) if share < 1 else 1)
        self.pool: Pool | None = None

    def add(self, first: int, found: Candidates) -> Candidates:
        """The next chunk, whose first candidate has this index; with its expected weights where the model's
        ranker gives them."""
        b, n, _ = found.z.shape
        if self.job.plan.expects == "ranker":
            states, actions = self.job.states[self.states], found.z[..., :-1]
            found = found._replace(expected=asked(self.model.ranker, states, actions))
        elif self.job.expect is not None:
            found = found._replace(expected=self.job.expect(self.states, first, found.z))
        indices = self.job.indices(self.states, torch.arange(first, first + n, device=found.z.device))
        pool = Pool(found.weights, indices, found.z, found.weights)
        share = self.job.config.keep_share < 1
        scores = found.expected if share else self._scores(pool, found.expected)
        pool = pool._replace(scores=torch.where(scores.isnan(), -torch.inf, scores))
        if self.size == 1:
            pool = pool.take(keep(pool.scores)[:, None])
        if self.pool is not None:
            pool = Pool(*(torch.cat(pair, dim=1) for pair in zip(self.pool, pool, strict=True)))
        # Stable, and lower indices stand first: ties go to them.
        order = pool.scores.sort(dim=1, descending=True, stable=True).indices
        self.pool = pool.take(order[:, :self.size])
        return found

    def best(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each state the chosen action [b, A], its weight [b] and its index [b]."""
        pool = self.pool
        if self.job.config.keep_share < 1:
            pool = pool.take(pool.indices.argsort(dim=1))
            scores = self._scores(pool, pool.scores)
            pool = pool.take(keep(torch.where(scores.isnan(), -torch.inf, scores))[:, None])
        return pool.z[:, 0, :-1], pool.weights[:, 0], pool.indices[:, 0]

    def shortlisted(self) -> torch.Tensor:
        """Which candidates of each state are on the shortlist, rising: [b, K]."""
        return self.pool.indices.sort(dim=1).values

    def _scores(self, pool: Pool, expected: torch.Tensor | None) -> torch.Tensor:
        """What a pool's candidates [b, m] are chosen by."""
        job, config = self.job, self.job.config
        if config.select == "max_weight" or (config.select == "expected_weight" and expected is None):
            return pool.weights  # also of a draft whose finished candidates are ranked by expected weight
        if config.select == "expected_weight":
            return expected
        if config.select == "max_q":
            return asked(self.model.critic, job.states[self.states], pool.z[..., :-1])
        if config.select == "softmax":
            logits = pool.weights.clamp(min=config.weight_clip[0]).log() / job.plan.selection_temperature
            words = job.state_indices[self.states][:, None]
            return logits + philox.gumbel(job.seed, pool.indices, words, job.plan.table.trained_steps)
        return torch.zeros_like(pool.weights)
