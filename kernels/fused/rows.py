"""A trajectory's steps one launch at a time, beside a network that runs on its own (`kernels.fused.hopper`):
the first draw, a row of the sampler's table, the selection. A program has a tile; ``start`` is the first
tile of all (state, tile) pairs that this launch has, and its memory begins there."""

from __future__ import annotations

import triton
import triton.language as tl
from swg_fast.kernels.fused.blocks import at_rows
from swg_fast.kernels.fused.keep import keep_of_tile
from swg_fast.kernels.fused.update import update
from swg_fast.kernels.shared.noise import normals


@triton.jit
def place(start, tiles, first, state_words, BM: tl.constexpr):
    """(pair, state, candidates [BM], the state's word) of this program."""
    pair = start + tl.program_id(0)
    b = pair // tiles
    candidate = (first + pair % tiles * BM + tl.arange(0, BM)).to(tl.uint32)
    return pair, b, candidate, tl.load(state_words + b).to(tl.uint32)


@triton.jit(do_not_specialize=["start", "tiles", "first", "T", "k0", "k1"])
def begin_kernel(z, clean, owners, state_words, initial_scale, start, tiles, first, T, k0, k1,
                 D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr):
    """The first z [.., DP], zeros for the x0 before, and each row's state."""
    _, b, candidate, state = place(start, tiles, first, state_words, BM)
    row = tl.program_id(0) * BM
    at = at_rows(row, BM, DP)
    drawn = initial_scale * normals(candidate, state, T.to(tl.uint32), k0.to(tl.uint32), k1.to(tl.uint32), DP)
    tl.store(z + at, tl.where(tl.arange(0, DP)[None, :] < D, drawn, 0.0))
    tl.store(clean + at, tl.zeros([BM, DP], tl.float32))
    tl.store(owners + row + tl.arange(0, BM), tl.zeros([BM], tl.int64) + b)


@triton.jit(do_not_specialize=["start", "tiles", "first", "step", "k0", "k1"])
def row_kernel(z, clean, weight, eps, vjp, state_words, row, w_min, w_max, start, tiles, first, step, k0, k1,
               D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, GUIDED: tl.constexpr,
               CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr):
    """One row of the sampler's table, in place, with the noise of ``step``."""
    _, _, candidate, state = place(start, tiles, first, state_words, BM)
    first_row = tl.program_id(0) * BM
    at = at_rows(first_row, BM, DP)
    xi = normals(candidate, state, step.to(tl.uint32), k0.to(tl.uint32), k1.to(tl.uint32), DP)
    e = tl.load(eps + at)
    v = tl.zeros_like(e)
    if GUIDED:
        v = tl.load(vjp + at)
    z_next, raw, _, clean_next = update(tl.load(z + at), e, v, xi, tl.load(clean + at), row, w_min, w_max, D,
                                        DP, GUIDED, CLIP_STATE, CLIP_CLEAN, MULTISTEP)
    tl.store(z + at, z_next)
    tl.store(clean + at, clean_next)
    tl.store(weight + first_row + tl.arange(0, BM), raw)


@triton.jit(do_not_specialize=["start", "tiles", "first", "T", "N", "k0", "k1"])
def finish_kernel(z, weight, state_words, w_min, gumbel_scale, best_score, best_index, best_weight, best_z,
                  all_z, all_weight, start, tiles, first, T, N, k0, k1, D: tl.constexpr, DP: tl.constexpr,
                  BM: tl.constexpr, SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr):
    """Each tile's best candidate, and all where WRITE_ALL."""
    pair, b, _, state = place(start, tiles, first, state_words, BM)
    row = tl.program_id(0) * BM
    index = pair % tiles * BM + tl.arange(0, BM)
    keep_of_tile(z + row * DP, weight + row, weight, b, index, N, pair, N, first, state, T, k0.to(tl.uint32),
                 k1.to(tl.uint32), w_min, gumbel_scale, best_score, best_index, best_weight, best_z, all_z,
                 all_weight, all_weight, D, DP, BM, False, SOFTMAX, WRITE_ALL)
