"""A tile's best candidate of each of its states, in the Gluon kernels."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from swg_fast.kernels.fused.hopper.shared_memory import ROWS
from swg_fast.kernels.fused.portable.selection import beaten, selection_score
from swg_fast.kernels.fused.portable.tiles import place_of, rows_of


@gluon.jit
def lost_to_another(score, tile, N):
    """Whether (1 or 0) another lane of the same state beats a lane's ``score`` [64] (`beaten`). Two threads
    hold a row and all that it is compared with."""
    pairs: gl.constexpr = gl.BlockedLayout([1, ROWS // 2], [16, 2], [4, 1], [1, 0])
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, pairs))
    others = gl.arange(0, ROWS, gl.SliceLayout(0, pairs))
    return beaten(gl.convert_layout(score, gl.SliceLayout(1, pairs))[:, None],
                  (rows_of(lanes, tile) // N)[:, None], lanes[:, None],
                  gl.convert_layout(score, gl.SliceLayout(0, pairs))[None, :],
                  (rows_of(others, tile) // N)[None, :], others[None, :])


@gluon.jit
def keep(z_at, weight_at, score_at, tile, number, N, slots, stride, tiles, words, results, numbers,
         D: gl.constexpr, DP: gl.constexpr, RANK: gl.constexpr, SOFTMAX: gl.constexpr,
         WRITE_ALL: gl.constexpr, MIXED: gl.constexpr, few: gl.constexpr):
    """As `kernels.fused.portable.selection.keep_of_tile`."""
    of_rows: gl.constexpr = gl.SliceLayout(1, few)
    lanes = gl.arange(0, ROWS, of_rows)
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    rows = rows_of(lanes, tile)
    owner = rows // N
    index = rows - owner * N
    inside = lanes < tile.count
    z = gl.load(z_at + lanes[:, None] * DP + entries[None, :])
    raw = gl.load(weight_at + lanes)
    score = raw
    if RANK:
        score = gl.load(score_at + lanes)
    if WRITE_ALL:
        row = rows.to(gl.int64)
        there = inside[:, None] & (entries < D)[None, :]
        gl.store(results.all_z + row[:, None] * D + entries[None, :], z, mask=there)
        gl.store(results.all_weight + row, raw, mask=inside)
        if RANK:
            gl.store(results.all_expected + row, score, mask=inside)
    candidate = numbers.first.to(gl.uint32) + index.to(gl.uint32)
    score = selection_score(score, raw, inside, candidate, words + owner, numbers.T, numbers.k0, numbers.k1,
                            numbers.w_min, numbers.gumbel_scale, SOFTMAX)
    if MIXED:
        best = gl.convert_layout(lost_to_another(score, tile, N), of_rows) == 0
    else:
        best = lanes == gl.min(gl.where(score == gl.max(score, axis=0), lanes, ROWS), axis=0)
    chosen = inside & best
    place = place_of(owner, number, N, slots, stride, tiles, ROWS)
    gl.store(results.best_score + place, score, mask=chosen)
    gl.store(results.best_index + place, index, mask=chosen)
    gl.store(results.best_weight + place, raw, mask=chosen)
    gl.store(results.best_z + place[:, None] * DP + entries[None, :], z, mask=chosen[:, None])
