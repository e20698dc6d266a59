"""The selection: a tile's best candidate of each of its states, then the best of a state's tiles."""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.stages import at_rows
from swg_fast.kernels.fused.portable.tiles import number_of, place_of, rows_of
from swg_fast.kernels.shared.philox import gumbel


@triton.jit
def selection_score(score, raw, inside, candidate, word_at, T, key0, key1, w_min, gumbel_scale,
                    SOFTMAX: tl.constexpr):
    """The score by which a tile keeps a candidate, for Triton and Gluon: ``score`` or, if SOFTMAX, the log of
    the weights ``raw`` plus Gumbel noise, whose state words are at ``word_at``; -inf for a candidate that is
    not ``inside`` or is NaN."""
    if SOFTMAX:
        score = tl.log(tl.maximum(raw, w_min)) * gumbel_scale
        state = tl.load(word_at).to(tl.uint32)
        score += gumbel(candidate, state, (T + 1).to(tl.uint32), key0, key1)
    return tl.where(inside & (score == score), score, float("-inf"))


@triton.jit
def beaten(score, owner, lane, others, their_owner, their_lane):
    """Whether (1 or 0) one of ``others`` [1, n] of the same owner has a higher score than ``score`` [m, 1],
    or the same in a lower lane: [m]."""
    higher = (others > score) | ((others == score) & (their_lane < lane))
    return tl.max((higher & (their_owner == owner)).to(tl.int32), axis=1)


@triton.jit
def best_of_each(score_at, score, tile, N, BM: tl.constexpr):
    """Whether a lane's ``score`` [BM] is the best of its state in the tile; of equal ones the first. All are
    written to ``score_at`` and compared from there, a few at a time: all pairs at once would spill."""
    FEW: tl.constexpr = 16
    lanes = tl.arange(0, BM)
    tl.store(score_at + lanes, score)
    tl.debug_barrier()
    lost = tl.zeros([BM], tl.int32)
    for first in tl.range(0, BM, FEW, disable_licm=True):
        others = first + tl.arange(0, FEW)
        mine = tl.load(score_at + lanes)[:, None]
        lost = tl.maximum(lost, beaten(mine, (rows_of(lanes, tile) // N)[:, None], lanes[:, None],
                                       tl.load(score_at + others)[None, :],
                                       (rows_of(others, tile) // N)[None, :], others[None, :]))
    return lost == 0


@triton.jit
def keep_of_tile(z_at, weight_at, score_at, tile, number, N, slots, stride, tiles, first, state_words, T,
                 key0, key1, w_min, gumbel_scale, best_score, best_index, best_weight, best_z, all_z,
                 all_weight, all_expected, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr,
                 RANK: tl.constexpr, SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr, MIXED: tl.constexpr):
    """Writes a finished ``tile``'s best candidate of each of its states to that state's place in best_*, as
    tile ``number`` (`tiles.place_of`); if WRITE_ALL, also all candidates."""
    entries = tl.arange(0, DP)
    lanes = tl.arange(0, BM)
    rows = rows_of(lanes, tile)
    owner = rows // N
    index = rows - owner * N
    inside = lanes < tile.count
    z = tl.load(z_at + at_rows(0, BM, DP))
    raw = tl.load(weight_at + tl.arange(0, BM))
    score = raw
    if RANK:
        score = tl.load(score_at + tl.arange(0, BM))
    if WRITE_ALL:
        row = rows.to(tl.int64)
        keep = inside[:, None] & (entries < D)[None, :]
        tl.store(all_z + row[:, None] * D + entries[None, :], z, mask=keep)
        tl.store(all_weight + row, raw, mask=inside)
        if RANK:
            tl.store(all_expected + row, score, mask=inside)
    candidate = first.to(tl.uint32) + index.to(tl.uint32)
    score = selection_score(score, raw, inside, candidate, state_words + owner, T, key0, key1, w_min,
                            gumbel_scale, SOFTMAX)
    if MIXED:
        best = best_of_each(score_at, score, tile, N, BM)
    else:
        best = lanes == tl.min(tl.where(score == tl.max(score, axis=0), lanes, BM), axis=0)
    chosen = inside & best
    place = place_of(owner, number, N, slots, stride, tiles, BM)
    tl.store(best_score + place, score, mask=chosen)
    tl.store(best_index + place, index, mask=chosen)
    tl.store(best_weight + place, raw, mask=chosen)
    tl.store(best_z + place[:, None] * DP + entries[None, :], z, mask=chosen[:, None])


@triton.jit(do_not_specialize=["N", "slots", "stride", "tiles"])
def keep_best_kernel(best_score, best_index, best_weight, best_z, actions, weights, indices, scores, N, slots,
                     stride, tiles, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, BT: tl.constexpr):
    """The best of each state's tiles: actions [B, D-1], weights, indices and scores [B]. Tiles are in order,
    so the lowest index wins a tie."""
    b = tl.program_id(0)
    lanes = tl.arange(0, BT)
    count = 1 + number_of(b * N + N - 1, stride, tiles, BM) - number_of(b * N, stride, tiles, BM)
    top = float("-inf")
    winner = 0
    for first in range(0, count, BT):
        tile = first + lanes
        score = tl.load(best_score + b * slots + tile, mask=tile < count, other=float("-inf"))
        here = tl.max(score, axis=0)
        where = tl.min(tl.where(score == here, tile, 0x7FFFFFFF), axis=0)
        better = here > top
        winner = tl.where(better, where, winner)
        top = tl.where(better, here, top)
    entries = tl.arange(0, DP)
    pair = b * slots + winner
    z = tl.load(best_z + pair * DP + entries)
    tl.store(actions + b * (D - 1) + entries, z, mask=entries < D - 1)
    tl.store(weights + b, tl.load(best_weight + pair))
    tl.store(indices + b, tl.load(best_index + pair).to(tl.int64))
    tl.store(scores + b, top)
