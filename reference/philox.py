"""Noise as a pure function: Philox-4x32-10 (Salmon et al. 2011) and Box-Muller.

Key: the 64-bit seed. Counter: (candidate, state, step, block). A candidate's noise depends on nothing else:
every split of the work over batches, chunks and devices draws the same noise.
"""

from __future__ import annotations

import math

import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def philox_4x32(counter: tuple[torch.Tensor, ...], seed: int | torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Four words in 0..2**32-1 for a counter of four such words (int64 tensors of one shape).

    int64 arithmetic wraps modulo 2**64, so a 32 x 32 bit product keeps both halves.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK,
        )
        k0, k1 = (k0 + KEY_INCREMENTS[0]) & MASK, (k1 + KEY_INCREMENTS[1]) & MASK
    return c0, c1, c2, c3


def words(seed: int | torch.Tensor, candidates: torch.Tensor, states: torch.Tensor, step: int | torch.Tensor,
          block: int | torch.Tensor = 0) -> tuple[torch.Tensor, ...]:
    """The four words of each counter (candidates, states, step, block), all broadcast together."""
    counter = [torch.as_tensor(part, device=candidates.device).to(torch.int64) & MASK
               for part in (candidates, states, step, block)]
    return philox_4x32(torch.broadcast_tensors(*counter), seed)


def uniform(word: torch.Tensor) -> torch.Tensor:
    """A word's upper 23 bits as the centre of a cell of (0, 1), exact in float32 and float64."""
    return ((word >> 9).to(torch.float64) + 0.5) * 2.0**-23


def normals(seed: int | torch.Tensor, candidates: torch.Tensor, states: torch.Tensor,
            step: int | torch.Tensor, dim: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal noise [..., dim] of step ``step`` (T is the initial draw), for candidates, states and
    step whose shapes broadcast to [...].

    Computed in float64 and rounded once, so every device gives the same float32 values.
    """
    blocks = torch.arange((dim + 3) // 4, device=candidates.device)
    step = torch.as_tensor(step, device=candidates.device)[..., None]
    u = [uniform(word) for word in words(seed, candidates[..., None], states[..., None], step, blocks)]
    pairs = []
    for radius_u, angle_u in ((u[0], u[1]), (u[2], u[3])):
        radius = torch.sqrt(-2.0 * torch.log(radius_u))
        angle = 2.0 * math.pi * angle_u
        pairs += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(pairs, dim=-1).flatten(-2)[..., :dim].to(dtype)


def gumbel(seed: int, candidates: torch.Tensor, states: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Standard Gumbel noise [M] for `softmax` selection: the first uniform of step T + 1."""
    u = uniform(words(seed, candidates, states, num_steps + 1)[0])
    return (-torch.log(-torch.log(u))).to(torch.float32)
