"""The best of a tile in the Gluon kernels."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from swg_fast.kernels.fused.hopper.shared_memory import ROWS
from swg_fast.kernels.fused.portable.selection import selection_score


@gluon.jit
def keep(z_at, weight_at, score_at, b, index, end, tile, N, state, results, numbers, D: gl.constexpr,
         DP: gl.constexpr, RANK: gl.constexpr, SOFTMAX: gl.constexpr, WRITE_ALL: gl.constexpr,
         few: gl.constexpr):
    """As `kernels.fused.portable.selection.keep_of_tile`."""
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, few))
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    inside = index < end
    z = gl.load(z_at + lanes[:, None] * DP + entries[None, :])
    raw = gl.load(weight_at + lanes)
    score = raw
    if RANK:
        score = gl.load(score_at + lanes)
    if WRITE_ALL:
        row = b.to(gl.int64) * N + index
        there = inside[:, None] & (entries < D)[None, :]
        gl.store(results.all_z + row[:, None] * D + entries[None, :], z, mask=there)
        gl.store(results.all_weight + row, raw, mask=inside)
        if RANK:
            gl.store(results.all_expected + row, score, mask=inside)
    score = selection_score(score, raw, inside, numbers.first + index, state, numbers.T, numbers.k0,
                            numbers.k1, numbers.w_min, numbers.gumbel_scale, SOFTMAX)
    top = gl.max(score, axis=0)
    at = gl.min(gl.where(score == top, index, 0x7FFFFFFF), axis=0)
    chosen = index == at
    gl.store(results.best_score + tile, top)
    gl.store(results.best_index + tile, at)
    gl.store(results.best_weight + tile, gl.sum(gl.where(chosen, raw, 0.0), axis=0))
    gl.store(results.best_z + tile * DP + entries, gl.sum(gl.where(chosen[:, None], z, 0.0), axis=0))
