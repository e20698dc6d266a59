"""The phases of a tile: the roots of a tree, their leaves, and the draws that rank them.

A tree's work item is a group of roots. Its phase 0 takes the roots, a candidate each, through the first
``shared`` rows and stores z, and x0 for multistep samplers, in the program's part of ``roots``. Every later
phase takes a tile of their leaves on from there. Memory holds only the roots of running programs, a tile each
of 2 DP floats a candidate, so it does not grow with N.

A ranking draw noises the finished z again, with the weight's entry at its mean, and predicts the clean weight
from it by one more row of the sampler's table, whose x0 is the answer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.sampler_row import CLEAN_SCALE, SIGMA
from swg_fast.kernels.fused.portable.stages import at_rows
from swg_fast.kernels.shared.philox import normals


@triton.jit
def begin(z_at, clean_at, roots, candidate, state, step, key0, key1, initial_scale, phase, leaves,
          D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, MULTISTEP: tl.constexpr, TREE: tl.constexpr):
    """Writes a phase's first z and x0 to scratch: the initial draw at ``step``, or the roots'."""
    at = at_rows(0, BM, DP)
    if TREE:
        if phase > 0:
            root = tl.minimum(((phase - 1) * BM + tl.arange(0, BM)) // leaves, BM - 1)
            source = roots + root[:, None] * DP + tl.arange(0, DP)[None, :]
            tl.store(z_at + at, tl.load(source))
            if MULTISTEP:
                tl.store(clean_at + at, tl.load(source + BM * DP))
        else:
            _draw(z_at, clean_at, candidate, state, step, key0, key1, initial_scale, D, DP, BM, MULTISTEP)
    else:
        _draw(z_at, clean_at, candidate, state, step, key0, key1, initial_scale, D, DP, BM, MULTISTEP)
    tl.debug_barrier()


@triton.jit
def _draw(z_at, clean_at, candidate, state, step, key0, key1, initial_scale, D: tl.constexpr,
          DP: tl.constexpr, BM: tl.constexpr, MULTISTEP: tl.constexpr):
    z = initial_scale * normals(candidate, state, step, key0, key1, DP)
    tl.store(z_at + at_rows(0, BM, DP), tl.where(tl.arange(0, DP)[None, :] < D, z, 0.0))
    if MULTISTEP:
        tl.store(clean_at + at_rows(0, BM, DP), tl.zeros([BM, DP], tl.float32))


@triton.jit
def leave_roots(z_at, clean_at, roots, BM: tl.constexpr, DP: tl.constexpr, MULTISTEP: tl.constexpr):
    """The end of phase 0: stores the roots' z and x0 for the leaves."""
    at = at_rows(0, BM, DP)
    tl.store(roots + at, tl.load(z_at + at))
    if MULTISTEP:
        tl.store(roots + BM * DP + at, tl.load(clean_at + at))
    tl.debug_barrier()


@triton.jit
def noise_again(z_at, kept_at, row, draw, candidate, state, step, key0, key1, mean,
                D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr):
    """Ranking draw number ``draw``: z becomes the finished action with the weight's entry at its mean, noised
    to the ranking's step. The first draw keeps the finished action aside."""
    at = at_rows(0, BM, DP)
    if draw == 0:
        tl.store(kept_at + at, tl.load(z_at + at))
        tl.debug_barrier()
    entries = tl.arange(0, DP)[None, :]
    z = tl.where(entries == D - 1, mean, tl.load(kept_at + at)) / tl.load(row + CLEAN_SCALE)
    z += tl.load(row + SIGMA) * normals(candidate, state, step, key0, key1, DP)
    tl.store(z_at + at, tl.where(entries < D, z, 0.0))
    tl.debug_barrier()
