"""The selection: the best of a tile, then the best of a state's tiles."""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.stages import at_rows
from swg_fast.kernels.shared.philox import gumbel


@triton.jit
def selection_score(score, raw, inside, candidate, state, T, key0, key1, w_min, gumbel_scale,
                    SOFTMAX: tl.constexpr):
    """The score by which a tile keeps a candidate, for Triton and Gluon: ``score`` or, if SOFTMAX, the log of
    the weights ``raw`` plus Gumbel noise; -inf for a candidate that is not ``inside`` or is NaN."""
    if SOFTMAX:
        score = tl.log(tl.maximum(raw, w_min)) * gumbel_scale
        score += gumbel(candidate.to(tl.uint32), state, (T + 1).to(tl.uint32), key0, key1)
    return tl.where(inside & (score == score), score, float("-inf"))


@triton.jit
def keep_of_tile(z_at, weight_at, score_at, b, index, end, tile, N, first, state, T, key0, key1, w_min,
                 gumbel_scale, best_score, best_index, best_weight, best_z, all_z, all_weight, all_expected,
                 D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, RANK: tl.constexpr,
                 SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr):
    """Writes the best of a finished tile's candidates ``index`` [BM] below ``end`` to place ``tile`` of
    best_*; if WRITE_ALL, also all candidates."""
    entries = tl.arange(0, DP)
    inside = index < end
    z = tl.load(z_at + at_rows(0, BM, DP))
    raw = tl.load(weight_at + tl.arange(0, BM))
    score = raw
    if RANK:
        score = tl.load(score_at + tl.arange(0, BM))
    if WRITE_ALL:
        row = b.to(tl.int64) * N + index
        keep = inside[:, None] & (entries < D)[None, :]
        tl.store(all_z + row[:, None] * D + entries[None, :], z, mask=keep)
        tl.store(all_weight + row, raw, mask=inside)
        if RANK:
            tl.store(all_expected + row, score, mask=inside)
    score = selection_score(score, raw, inside, first + index, state, T, key0, key1, w_min, gumbel_scale,
                            SOFTMAX)
    top = tl.max(score, axis=0)
    at = tl.min(tl.where(score == top, index, 0x7FFFFFFF), axis=0)
    chosen = (index == at)
    tl.store(best_score + tile, top)
    tl.store(best_index + tile, at)
    tl.store(best_weight + tile, tl.sum(tl.where(chosen, raw, 0.0), axis=0))
    tl.store(best_z + tile * DP + entries, tl.sum(tl.where(chosen[:, None], z, 0.0), axis=0))


@triton.jit(do_not_specialize=["tiles"])
def keep_best_kernel(best_score, best_index, best_weight, best_z, actions, weights, indices, tiles,
                     D: tl.constexpr, DP: tl.constexpr, BT: tl.constexpr):
    """The best of each state's tiles: actions [B, D-1], weights [B], indices [B]. Tiles are in order, so the
    lowest index wins a tie."""
    b = tl.program_id(0)
    lanes = tl.arange(0, BT)
    top = float("-inf")
    winner = 0
    for first in range(0, tiles, BT):
        tile = first + lanes
        score = tl.load(best_score + b * tiles + tile, mask=tile < tiles, other=float("-inf"))
        here = tl.max(score, axis=0)
        where = tl.min(tl.where(score == here, tile, 0x7FFFFFFF), axis=0)
        better = here > top
        winner = tl.where(better, where, winner)
        top = tl.where(better, here, top)
    entries = tl.arange(0, DP)
    pair = b * tiles + winner
    z = tl.load(best_z + pair * DP + entries)
    tl.store(actions + b * (D - 1) + entries, z, mask=entries < D - 1)
    tl.store(weights + b, tl.load(best_weight + pair))
    tl.store(indices + b, tl.load(best_index + pair).to(tl.int64))
