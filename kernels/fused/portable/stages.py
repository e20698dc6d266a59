"""Forward and backward passes of the residual blocks, for a tile of candidates with activations in scratch.

Letters: BM candidates a tile, BR rows of it at a time in a pass, H hidden, BC columns of the 4H-wide layer at
a time. The residual stream and running sums are float32. Products run in the weights' type, in which scratch
also holds their operands, the cotangent and a stage's sums.

Every stage reads from memory and writes to memory, and no loop lets the compiler move code out of it
(`disable_licm`): otherwise a stage's addresses and operands would hold registers during all other stages.
Scratch is private to a program and small enough to stay in the L2 cache.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.tiles import owner_of, rows_of

# The interpreter would multiply bf16 operands as the integers that hold their bits.
WIDEN = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, summed in float32."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def operand(a, dtype: tl.constexpr, PRECISION: tl.constexpr):
    """``a`` as a product's operand: in ``dtype``; for tf32 rounded to its 10 bits of mantissa, since the
    tensor cores would truncate the other 13."""
    if PRECISION == "tf32":
        bits = a.to(tl.uint32, bitcast=True)
        return ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)
    return a.to(dtype)


@triton.jit
def tanh(u):
    """tanh(u) to 2^-11, in one instruction."""
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [u], tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(a):
    """1 / (1 + exp(-a)), to 4 units of rounding. The square of a reciprocal square root takes fewer
    instructions and registers than a division."""
    r = tl.rsqrt(1.0 + tl.exp(-a))
    return r * r


@triton.jit
def silu(u, dtype: tl.constexpr):
    """SiLU(2 u) = u (1 + tanh(u)), to be rounded to ``dtype``: approximate tanh suffices for bf16's 8
    bits."""
    if dtype == tl.bfloat16 and not WIDEN:
        return u + u * tanh(u)
    return 2.0 * u * sigmoid(2.0 * u)


@triton.jit
def times_slope(inner, u, dtype: tl.constexpr):
    """``inner`` times 2 SiLU'(2 u) = 1 + tanh(u) + u (1 - tanh(u)^2). The weights before a SiLU are stored
    halved, which is exact; the factor 2 cancels this in the product that follows."""
    if dtype == tl.bfloat16 and not WIDEN:
        t = tanh(u)
        return inner + inner * (t + u * (1.0 - t * t))
    s = sigmoid(2.0 * u)
    return inner * (2.0 * s * (1.0 + 2.0 * u * (1.0 - s)))


@triton.jit
def at_rows(first, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of rows first .. first + ROWS - 1 of a contiguous [.., COLUMNS]."""
    return (first + tl.arange(0, ROWS))[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def add_rows(h, sums, bias, first, pending, BR: tl.constexpr, H: tl.constexpr, KEEP: tl.constexpr):
    """The rows at ``h`` of the residual stream plus the last stage's ``sums`` and ``bias`` [BR, H]; stored
    too if KEEP. With ``pending`` 0 nothing is added."""
    at = at_rows(first, BR, H)
    rows = tl.load(h + at)
    rows += tl.load(sums + at, mask=pending != 0, other=0.0).to(tl.float32)
    rows += tl.load(bias + tl.arange(0, H), mask=pending != 0, other=0.0)[None, :]
    if KEEP:
        tl.store(h + at, rows, mask=pending != 0)
    return rows


@triton.jit
def input_product(z, h, input_z, state_vectors, tile, N, time_row, D: tl.constexpr, DP: tl.constexpr,
                  BM: tl.constexpr, H: tl.constexpr, BR: tl.constexpr, MIXED: tl.constexpr):
    """The input layer [BM, H] to ``h``: z W_in in float32 multiply-adds (D columns are too few for tensor
    cores, and z is the fp32 state), plus the vector of the row's state and the step's row."""
    columns = tl.arange(0, H)
    for first in tl.range(0, BM, BR, disable_licm=True):
        rows = first + tl.arange(0, BR)
        owner = owner_of(rows_of(rows, tile), tile, N, MIXED)
        if MIXED:
            total = tl.load(state_vectors + owner[:, None] * H + columns[None, :])
        else:
            total = tl.load(state_vectors + owner * H + columns)[None, :] + tl.zeros([BR, H], tl.float32)
        total += tl.load(time_row + columns)[None, :]
        for d in tl.range(0, D, disable_licm=True):
            total += tl.load(z + rows * DP + d)[:, None] * tl.load(input_z + d * H + columns)[None, :]
        tl.store(h + at_rows(first, BR, H), total)
    tl.debug_barrier()


@triton.jit
def centred(rows, LN_EPS: tl.constexpr, H: tl.constexpr):
    """``rows`` [BR, H] minus their means, and 1 / std [BR]; their product is the LayerNorm of the rows."""
    rows -= (tl.sum(rows, axis=1) / H)[:, None]
    inverse = 1.0 / tl.sqrt(tl.sum(rows * rows, axis=1) / H + LN_EPS)
    return rows, inverse


@triton.jit
def through_norm(inner, x, H: tl.constexpr):
    """A LayerNorm's input cotangent, without 1 / std, from that of its result ``x``, ``inner`` [BR, H]."""
    mean = tl.sum(inner, axis=1) / H
    along = tl.sum(inner * x, axis=1) / H
    return inner - mean[:, None] - x * along[:, None]


@triton.jit
def block_forward(h, sums, bias, pending, x, rstd, up, up_bias, down, LN_EPS: tl.constexpr,
                  BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, KEEP: tl.constexpr,
                  PRECISION: tl.constexpr):
    """down SiLU(up LayerNorm(h)) to ``sums`` (the next stage adds it and its bias to h), BC columns
    of the wide layer at a time. The normalised input stays at ``x`` [BM, H] and, if KEEP, 1 / std at ``rstd``
    [BM]."""
    dtype: tl.constexpr = x.dtype.element_ty
    for first in tl.range(0, BM, BR, disable_licm=True):
        rows = add_rows(h, sums, bias, first, pending, BR, H, True)
        rows, inverse = centred(rows, LN_EPS, H)
        if KEEP:
            tl.store(rstd + first + tl.arange(0, BR), inverse)
        tl.store(x + at_rows(first, BR, H), operand(rows * inverse[:, None], dtype, PRECISION))
    tl.debug_barrier()  # other threads may read what one thread wrote
    xd = tl.load(x + at_rows(0, BM, H))
    chunk = tl.arange(0, BC)
    total = tl.zeros([BM, H], tl.float32)
    bias_c = tl.load(up_bias + chunk)
    for c in tl.range(0, 4 * H, BC, disable_licm=True):
        weights = at_rows(c, BC, H)
        u = dot(xd, tl.trans(tl.load(up + weights)), None, PRECISION)
        u += bias_c[None, :]
        total = dot(operand(silu(u, dtype), dtype, PRECISION), tl.load(down + weights), total, PRECISION)
        bias_c = tl.load(up_bias + (c + BC) % (4 * H) + chunk)
    tl.debug_barrier()
    tl.store(sums + at_rows(0, BM, H), total.to(dtype))
    tl.debug_barrier()


@triton.jit
def block_backward(g, sums, x, rstd, up, up_bias, down, BM: tl.constexpr, H: tl.constexpr,
                   BC: tl.constexpr, BR: tl.constexpr, PRECISION: tl.constexpr):
    """Takes the cotangent ``g`` [BM, H], in the weights' type, back through the block whose normalised input
    is at ``x``, in place. Recomputes the wide layer instead of storing it."""
    dtype: tl.constexpr = x.dtype.element_ty
    gd = tl.load(g + at_rows(0, BM, H))
    xd = tl.load(x + at_rows(0, BM, H))
    chunk = tl.arange(0, BC)
    total = tl.zeros([BM, H], tl.float32)
    bias_c = tl.load(up_bias + chunk)
    for c in tl.range(0, 4 * H, BC, disable_licm=True):
        weights = at_rows(c, BC, H)
        up_c = tl.load(up + weights)
        u = dot(xd, tl.trans(up_c), None, PRECISION)
        u += bias_c[None, :]
        inner = dot(gd, tl.trans(tl.load(down + weights)), None, PRECISION)
        inner = operand(times_slope(inner, u, dtype), dtype, PRECISION)
        total = dot(inner, up_c, total, PRECISION)
        bias_c = tl.load(up_bias + (c + BC) % (4 * H) + chunk)
    tl.debug_barrier()
    tl.store(sums + at_rows(0, BM, H), total.to(dtype))
    tl.debug_barrier()
    for first in tl.range(0, BM, BR, disable_licm=True):
        at = at_rows(first, BR, H)
        inner_rows = tl.load(sums + at).to(tl.float32)
        change = through_norm(inner_rows, tl.load(x + at).to(tl.float32), H)
        g_rows = tl.load(g + at).to(tl.float32) + tl.load(rstd + first + tl.arange(0, BR))[:, None] * change
        tl.store(g + at, operand(g_rows, dtype, PRECISION))
    tl.debug_barrier()


@triton.jit
def read_out_rows(h, sums, bias, pending, weight_row, g, BM: tl.constexpr, H: tl.constexpr,
                  BR: tl.constexpr, COTANGENT: tl.constexpr, PRECISION: tl.constexpr):
    """SiLU of the finished stream to ``sums``; if COTANGENT, that of ``weight_row`` SiLU(h) to ``g``."""
    dtype: tl.constexpr = sums.dtype.element_ty
    for first in tl.range(0, BM, BR, disable_licm=True):
        at = at_rows(first, BR, H)
        rows = add_rows(h, sums, bias, first, pending, BR, H, False)
        u = 0.5 * rows
        tl.debug_barrier()  # these rows' sums are read
        tl.store(sums + at, operand(silu(u, dtype), dtype, PRECISION))
        if COTANGENT:
            row = 0.5 * tl.load(weight_row + tl.arange(0, H)).to(tl.float32)
            row = tl.broadcast_to(row[None, :], [BR, H])
            tl.store(g + at, operand(times_slope(row, u, dtype), dtype, PRECISION))
    tl.debug_barrier()


@triton.jit
def early_head(h, sums, bias, g, eps_w, head, head_bias, head_output, head_output_bias,
               BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, E: tl.constexpr, BR: tl.constexpr,
               GUIDED: tl.constexpr, PRECISION: tl.constexpr):
    """The weight's separate head on the stream after the second block: eps_w [BM], and its cotangent."""
    dtype: tl.constexpr = sums.dtype.element_ty
    for first in tl.range(0, BM, BR, disable_licm=True):
        rows = add_rows(h, sums, bias, first, 1, BR, H, True)
        tl.debug_barrier()  # these rows' sums are read
        tl.store(sums + at_rows(first, BR, H), operand(rows, dtype, PRECISION))
    tl.debug_barrier()
    hd = tl.load(sums + at_rows(0, BM, H))
    chunk = tl.arange(0, BC)
    value = tl.zeros([BM], tl.float32)
    total = tl.zeros([BM, H], tl.float32)
    for c in tl.range(0, E, BC, disable_licm=True):
        head_c = tl.load(head + at_rows(c, BC, H))
        u = dot(hd, tl.trans(head_c), None, PRECISION)
        u += tl.load(head_bias + c + chunk)[None, :]
        out = tl.broadcast_to(tl.load(head_output + c + chunk)[None, :], [BM, BC])
        value += tl.sum(silu(u, dtype) * out, axis=1)
        if GUIDED:
            slope = operand(times_slope(out, u, dtype), dtype, PRECISION)
            total = dot(slope, head_c, total, PRECISION)
    tl.debug_barrier()
    tl.store(eps_w + tl.arange(0, BM), value + tl.load(head_output_bias))
    if GUIDED:
        tl.store(g + at_rows(0, BM, H), operand(total, dtype, PRECISION))
    tl.debug_barrier()


@triton.jit
def thin_product(a, weight, out, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
                 PRECISION: tl.constexpr):
    """a weight^T [BM, DP] of ``a`` [BM, H] and ``weight`` [DP, H] to ``out``, 64 of H at a time: more would
    keep a matrix descriptor for every 16 columns in registers."""
    dtype: tl.constexpr = a.dtype.element_ty
    columns = tl.arange(0, 64)[None, :]
    total = tl.zeros([BM, DP], tl.float32)
    for k in tl.range(0, H, 64, num_stages=1, disable_licm=True):
        w = tl.load(weight + tl.arange(0, DP)[:, None] * H + k + columns)
        w = operand(w, dtype, PRECISION)
        total = dot(tl.load(a + tl.arange(0, BM)[:, None] * H + k + columns), tl.trans(w), total, PRECISION)
    tl.debug_barrier()
    tl.store(out + at_rows(0, BM, DP), total)
    tl.debug_barrier()
