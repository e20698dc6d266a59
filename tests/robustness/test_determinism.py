"""Every way to carry out a search keeps the same candidate: backends, chunks, threads, surroundings and the
states' strides, crossed with samplers, trees, rankings, families and both heads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import make_network
from test_ambient import AMBIENT

from swg_fast import NoiseSchedule, Policy, TwinQ
from swg_fast.method.networks import Ranker
from swg_fast.method.weight_family import WeightFamily
from swg_fast.policy.backends.search import asked

S, A, B = 4, 2, 6
STATES = np.random.default_rng(1).standard_normal((B, S)).astype(np.float32)
SAME = {"dtype": "fp32", "seed": 5}
ROUNDING = 2e-5  # of a score, relative to the largest

SEARCHES: dict[str, dict[str, Any]] = {
    "one candidate": {"n_candidates": 1},
    "plain": {"n_candidates": 24},
    "unguided": {"n_candidates": 40, "guidance_scale": 0.0},
    "strong": {"n_candidates": 17, "guidance_scale": 4.0},
    "unclipped": {"n_candidates": 12, "clip_denoised": False},
    "ddpm_x0": {"n_candidates": 24, "sampler": "ddpm_x0", "weight_readout": "official"},
    "ddim": {"n_candidates": 24, "sampler": "ddim", "sampler_steps": 3},
    "dpmpp_2m": {"n_candidates": 24, "sampler": "dpmpp_2m"},
    "dpmpp_2m_sde": {"n_candidates": 24, "sampler": "dpmpp_2m_sde", "sampler_steps": 4},
    "tree": {"n_candidates": 24, "leaves": 4},
    "a tree's solver": {"n_candidates": 24, "leaves": 8, "sampler": "dpmpp_2m_sde", "branch_after": 2},
    "softmax": {"n_candidates": 24, "select": "softmax", "selection_temperature": 0.3},
    "max_q": {"n_candidates": 24, "select": "max_q"},
    "draws": {"n_candidates": 16, "select": "expected_weight", "ranking_draws": 3},
    "ranker": {"n_candidates": 24, "select": "expected_weight", "ranking": "ranker"},
    "read": {"n_candidates": 24, "select": "expected_weight", "ranking": "read"},
    "a share by draws": {"n_candidates": 24, "keep_share": 0.3, "ranking_draws": 2},
    "a tree's share": {"n_candidates": 24, "keep_share": 0.4, "ranking": "ranker", "leaves": 4,
                       "select": "max_q"},
}
FAMILY = {"guidance": "exponential:2", "n_candidates": 24, "guidance_scale": 2.0}


def make(head: str, family: bool) -> Policy:
    card: dict[str, Any] = {"training": {"weights": {"mean": 0.4}, "settings": {"read_share": 0.1}}}
    width = 0
    if family:
        fitted = WeightFamily.parse("expectile:0.6:0.95,exponential:0.5:10").fitted(torch.linspace(-2, 2, 50))
        card["weight_family"], width = fitted.to_card(), fitted.width
    torch.manual_seed(7)
    return Policy(make_network(S + width, A, 16, 2, head), NoiseSchedule.vp(4), TwinQ(S, A, 16), card=card,
                  ranker=Ranker(S, A, 16))


class Way(NamedTuple):
    """One way to carry a search out; ``lay`` makes the array of states that is handed over."""

    backend: str
    chunk: int | None = None
    threads: int = 1
    around: str | None = None
    lay: Callable[[np.ndarray], Any] = np.ascontiguousarray

    def surroundings(self) -> AbstractContextManager[Any]:
        return AMBIENT[self.around]() if self.around else nullcontext()


LAYOUTS = (np.asfortranarray, torch.from_numpy, lambda s: np.repeat(s, 3, axis=1)[:, ::3],
           lambda s: s[::-1].copy()[::-1], lambda s: torch.from_numpy(s.astype("f8")), lambda s: s.tolist(),
           lambda s: torch.from_numpy(s).T.contiguous().T)
AROUND = ("autocast", "float64 by default", "on meta by default", "inference mode", "denormals flushed",
          "products in bf16", "a mode of the caller", "gradients")


turns = zip(itertools.cycle(AROUND), itertools.cycle(LAYOUTS), strict=False)


def ways() -> list[Way]:
    """Of the fast backends each chunk and number of threads; surroundings and layouts in turn, others for
    each search."""
    fast = itertools.product(("torch", "cpu"), (None, 16), (1, 2))
    return [*(Way(*way, *next(turns)) for way in fast), Way("reference", 7, 1, *next(turns))]


def apart(policy: Policy, settings: dict[str, Any], row: int, two: list[int]) -> float:
    """How far two candidates of state ``row`` are from each other in what the reference ranks by, but for
    softmax's noise."""
    every = policy.sample(STATES, backend="reference", return_candidates=True, **SAME, **settings)
    ranked = every.candidate_weights if every.expected_weights is None else every.expected_weights
    if settings.get("select") == "max_q":
        ranked = asked(policy.model.critic, torch.from_numpy(STATES), every.candidates)
    one, other = ranked[row, two]
    return float((one - other).abs() / ranked[row].abs().max())


CASES = [*((head, False, name) for head in ("early", "joint") for name in SEARCHES),
         *((head, True, "family") for head in ("early", "joint"))]


@pytest.mark.slow
def test_every_way_keeps_the_same_candidate():
    policies = {(head, family): make(head, family) for head in ("early", "joint") for family in (False, True)}
    compared, near, threads = 0, 0, torch.get_num_threads()
    for head, family, name in CASES:
        policy, settings = policies[head, family], SEARCHES.get(name, FAMILY)
        wanted = policy.sample(STATES, backend="reference", **SAME, **settings)
        for way in ways():
            torch.set_num_threads(way.threads)
            with way.surroundings():
                found = policy.sample(way.lay(STATES), backend=way.backend, chunk=way.chunk, **SAME,
                                      **settings)
            torch.set_num_threads(threads)
            compared += B
            for row in (found.indices != wanted.indices).nonzero().flatten().tolist():
                two = [int(found.indices[row]), int(wanted.indices[row])]
                assert apart(policy, settings, row, two) < ROUNDING, (head, name, way, row, two)
                near += 1
    assert compared >= 2000 and near < compared / 100
