"""Policies with students of random weights, and their cards."""

from __future__ import annotations

import torch
from conftest import make_network

from swg_fast import NoiseSchedule, Policy
from swg_fast.method.networks import EnsembleQ, Ranker, TwinQ

S, A, T = 5, 3, 6
WALK = {"teacher": "", "sampler": "dpmpp_2m", "sampler_steps": 4, "guidance_scale": [2.0, 2.0],
        "steps": [5], "weight_clip": [1e-4, 1.0], "weight_readout": "exact", "clip_denoised": True}
FAMILY = {"functions": "expectile:0.6:0.95,dice", "mean_weights": [[0.3] * 17, [0.2] * 17]}
TRAINED = {"settings": {"read_share": 0.1}, "weights": {"mean": 0.3}}
# Changes of `WALK`, and whether the teacher has a family of weight functions.
KINDS = {
    "one call": ({}, False), "two calls": ({"steps": [2, 5]}, False),
    "a range": ({"guidance_scale": [1.0, 4.0]}, False), "not clipped": ({"clip_denoised": False}, False),
    "a family": ({}, True), "a family and a range": ({"guidance_scale": [1.0, 4.0]}, True)}


def states(count: int = 4) -> torch.Tensor:
    return torch.randn(count, S, generator=torch.Generator().manual_seed(3))


def student_policy(kind: str = "one call", beside: bool = True) -> Policy:
    """A policy that draws by its student, of one of `KINDS`, alone or ``beside`` its teacher."""
    more, family = KINDS[kind]
    walk = WALK | more
    own = 3 if family else 0
    low, high = walk["guidance_scale"]
    network = make_network(S + own, A, 64, 2, seed=0)
    student = make_network(S + own + int(high > low), A, 64, 2, seed=1)
    torch.manual_seed(5)
    judges = {"critic": TwinQ(S, A, 16), "ranker": Ranker(S, A, 16), "critics": EnsembleQ(S, A, 16, 3)}
    card = {"distilled": {"walk": walk}, "training": TRAINED,
            "sampling": {"sampler": "student", "dtype": "fp32", "clip_denoised": walk["clip_denoised"],
                         "guidance_scale": (low + high) / 2}}
    if family:
        card["weight_family"] = FAMILY
    if beside:
        return Policy(network, NoiseSchedule.vp(T), student=student, card=card, **judges)
    return Policy(student, NoiseSchedule.vp(T), card=card, **judges)


def teachers(policy: Policy) -> dict[str, object]:
    """The settings by which the policy's diffusion walks as its student has learnt."""
    walk = policy.model.walk
    return {"sampler": walk.sampler, "sampler_steps": walk.sampler_steps}
