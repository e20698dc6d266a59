"""Half a residual block a launch, for candidates too few to give every multiprocessor a tile.

The programs of a launch share one layer's weights: program (r, c) computes rows BM r .. of R, columns BC c ..
of the layer. Launches pass activations through memory that fits the L2 cache, and run in stream order. Rows
are padded to whole tiles; no row reads another row's padding.

- ``h`` [R, H], float32: the residual stream, updated in place.
- ``wide`` [R, 4H], the weights' type, like all below: one product's result for the next, SiLU of the wide
  layer in the forward pass, its cotangent in the backward pass.
- ``slope`` [R, 4H], ``x`` [R, H] and ``rstd`` [R] (float32) of every block that the gradient passes: the
  slope of its SiLU, its normalised input and 1 / std.
- ``read`` [R, H]: SiLU of the finished stream.
- ``g`` [R, H]: the cotangent of the stream after a block; ``inner`` [R, H]: that of the block's normalised
  input. A kernel that reads both takes ``inner`` through the normalisation (`cotangent`), which needs whole
  rows; a program of `narrow_kernel` has only parts of rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.stages import (
    at_rows,
    centred,
    dot,
    operand,
    silu,
    through_norm,
    times_slope,
)


@triton.jit
def cotangent(g, inner, x, rstd, first, BM: tl.constexpr, H: tl.constexpr):
    """The cotangent of the stream before a block [BM, H], from that after it: rows first .. of ``g``, plus
    those of ``inner`` taken through the normalisation."""
    at = at_rows(first, BM, H)
    inner_rows = tl.load(inner + at).to(tl.float32)
    change = through_norm(inner_rows, tl.load(x + at).to(tl.float32), H)
    scale = tl.load(rstd + first + tl.arange(0, BM))[:, None]
    return tl.load(g + at).to(tl.float32) + scale * change


@triton.jit
def up_kernel(h, up, up_bias, wide, slope, x, rstd, LN_EPS: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
              BC: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr):
    """SiLU(up LayerNorm(h)) to ``wide``; if KEEP, also what the backward pass needs."""
    dtype: tl.constexpr = wide.dtype.element_ty
    first = tl.program_id(0) * BM
    column = tl.program_id(1) * BC
    weights = tl.load(up + at_rows(column, BC, H))
    bias = tl.load(up_bias + column + tl.arange(0, BC))
    rows, inverse = centred(tl.load(h + at_rows(first, BM, H)), LN_EPS, H)
    rows = operand(rows * inverse[:, None], dtype, PRECISION)
    u = dot(rows, tl.trans(weights), None, PRECISION) + bias[None, :]
    at = (first + tl.arange(0, BM))[:, None] * 4 * H + column + tl.arange(0, BC)[None, :]
    tl.store(wide + at, operand(silu(u, dtype), dtype, PRECISION))
    if KEEP:
        tl.store(slope + at, times_slope(tl.full([BM, BC], 1.0, tl.float32), u, dtype).to(dtype))
        if column == 0:
            tl.store(x + at_rows(first, BM, H), rows)
            tl.store(rstd + first + tl.arange(0, BM), inverse)


@triton.jit
def narrow_kernel(a, weights, out, h, bias, output_row, read, K: tl.constexpr, BM: tl.constexpr,
                  H: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ADD: tl.constexpr, READ: tl.constexpr,
                  COTANGENT: tl.constexpr, PRECISION: tl.constexpr):
    """a weights [R, H] of ``a`` [R, K] and ``weights`` [K, H], BN columns a program, to ``out`` in the
    weights' type. If ADD, it is instead added with ``bias`` to the stream ``h``. If READ, the stream ends
    here: its SiLU goes to ``read`` and, if COTANGENT, the cotangent of ``output_row`` SiLU(h) to ``out``."""
    dtype: tl.constexpr = weights.dtype.element_ty
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = tl.arange(0, BK)
    total = tl.zeros([BM, BN], tl.float32)
    for k in tl.range(0, K, BK):
        left = tl.load(a + rows[:, None] * K + k + inside[None, :])
        right = tl.load(weights + (k + inside)[:, None] * H + columns[None, :])
        total = dot(left, right, total, PRECISION)
    at = rows[:, None] * H + columns[None, :]
    if ADD:
        total += tl.load(h + at) + tl.load(bias + columns)[None, :]
        tl.store(h + at, total)
        u = 0.5 * total
        if READ:
            tl.store(read + at, operand(silu(u, dtype), dtype, PRECISION))
        if COTANGENT:
            row = 0.5 * tl.load(output_row + columns).to(tl.float32)
            slope = times_slope(tl.broadcast_to(row[None, :], [BM, BN]), u, dtype)
            tl.store(out + at, operand(slope, dtype, PRECISION))
    else:
        tl.store(out + at, operand(total, dtype, PRECISION))


@triton.jit
def up_back_kernel(g, inner, x, rstd, g_out, down, slope, wide, BM: tl.constexpr, H: tl.constexpr,
                   BC: tl.constexpr, START: tl.constexpr, PRECISION: tl.constexpr):
    """The cotangent of a block's wide layer, before its SiLU, to ``wide``. The cotangent of the stream after
    the block is ``g`` if START; otherwise it is computed from ``g`` and ``inner``, and written to ``g_out``.
    """
    dtype: tl.constexpr = wide.dtype.element_ty
    first = tl.program_id(0) * BM
    column = tl.program_id(1) * BC
    weights = tl.load(down + at_rows(column, BC, H))
    if START:
        rows = tl.load(g + at_rows(first, BM, H))
    else:
        rows = operand(cotangent(g, inner, x, rstd, first, BM, H), dtype, PRECISION)
        if column == 0:
            tl.store(g_out + at_rows(first, BM, H), rows)
    product = dot(rows, tl.trans(weights), None, PRECISION)
    at = (first + tl.arange(0, BM))[:, None] * 4 * H + column + tl.arange(0, BC)[None, :]
    tl.store(wide + at, operand(product * tl.load(slope + at).to(tl.float32), dtype, PRECISION))


@triton.jit(do_not_specialize=["R"])
def head_kernel(h, head, head_bias, head_output, hidden, parts, R, BM: tl.constexpr, H: tl.constexpr,
                BC: tl.constexpr, E: tl.constexpr, GUIDED: tl.constexpr, PRECISION: tl.constexpr):
    """The early head on the stream after the second block. Program (r, c) writes its columns' share of eps_w
    to row c of ``parts`` [E / BC, R] and, if GUIDED, the cotangent of its hidden layer to ``hidden`` [R, E].
    """
    dtype: tl.constexpr = hidden.dtype.element_ty
    first = tl.program_id(0) * BM
    column = tl.program_id(1) * BC
    rows = first + tl.arange(0, BM)
    columns = column + tl.arange(0, BC)
    weights = tl.load(head + at_rows(column, BC, H))
    out = tl.broadcast_to(tl.load(head_output + columns)[None, :], [BM, BC])
    bias = tl.load(head_bias + columns)
    stream = operand(tl.load(h + at_rows(first, BM, H)), dtype, PRECISION)
    u = dot(stream, tl.trans(weights), None, PRECISION) + bias[None, :]
    tl.store(parts + tl.program_id(1) * R + rows, tl.sum(silu(u, dtype) * out, axis=1))
    if GUIDED:
        tl.store(hidden + rows[:, None] * E + columns[None, :],
                 operand(times_slope(out, u, dtype), dtype, PRECISION))
