"""The fused kernels: a tile of candidates walks through the guided sampler on the chip.

Letters: BM candidates a tile, H hidden, BC columns of the 4H-wide layer at a time, L blocks, E the
early head's width, D = A + 1 entries of z padded to DP with zeros. The residual stream, z and all
sums are float32; products run in the weights' type.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from kernels.noise import gumbel, normals

# Columns of the sampler's table (kernels.table.COLUMNS) by position.
SIGMA = tl.constexpr(0)
READOUT = tl.constexpr(1)
GUIDANCE = tl.constexpr(2)
CLEAN_SCALE = tl.constexpr(3)
STATE = tl.constexpr(4)
EPSILON = tl.constexpr(5)
CLEAN = tl.constexpr(6)
NOISE = tl.constexpr(7)


# The interpreter multiplies bf16 operands as the integers that hold their bits.
WIDEN = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, summed in float32."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def normalise(h, LN_EPS: tl.constexpr, H: tl.constexpr):
    """LayerNorm without scale and shift: (x [BM, H], 1 / std [BM])."""
    mean = tl.sum(h, axis=1) / H
    x = h - mean[:, None]
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / H + LN_EPS)
    return x * rstd[:, None], rstd


@triton.jit
def silu_slope(a):
    """The derivative of SiLU: s + a s (1 - s)."""
    s = tl.sigmoid(a)
    return s + a * s * (1.0 - s)


@triton.jit
def opaque_zero(zero):
    """0, in a way that the compiler cannot know. Offsets that it is added to are computed where they
    are used; otherwise the compiler computes all of them before the loops and keeps them, a hundred
    registers a thread."""
    return tl.multiple_of(tl.load(zero, volatile=True), 256)


@triton.jit
def through_memory(value, at):
    """``value`` in the weights' type, written at ``at`` and fetched again.

    An operand that comes straight from memory reaches the tensor cores by way of shared memory. One
    computed in registers stays in them, a copy for every warp group: 64 registers a thread that the
    residual and the sums need. The tile stays in the L2 cache.
    """
    tl.store(at, value.to(at.dtype.element_ty))
    tl.debug_barrier()  # what one thread wrote, another may fetch
    return tl.load(at)


@triton.jit
def block_forward(h, zero, x_ptr, rstd_ptr, up, up_bias, down, down_bias, LN_EPS: tl.constexpr,
                  BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr):
    """h + down(SiLU(up(normalise(h)))), BC columns of the wide layer at a time. The normalised
    input and 1 / std stay parked at x_ptr [BM, H] and rstd_ptr [BM]."""
    columns = tl.arange(0, H) + opaque_zero(zero)
    row = tl.arange(0, BM)
    x_at = x_ptr + row[:, None] * H + columns[None, :]
    rstd_at = rstd_ptr + row
    x, rstd = normalise(h, LN_EPS, H)
    tl.store(rstd_at, rstd)
    xd = through_memory(x, x_at)
    chunk = tl.arange(0, BC)
    h += tl.load(down_bias + columns)[None, :]
    for c in range(0, 4 * H, BC):
        rows = (c + chunk)[:, None] * H + columns[None, :]
        a = dot(xd, tl.trans(tl.load(up + rows)), None, PRECISION)
        a += tl.load(up_bias + c + chunk)[None, :]
        y = (a * tl.sigmoid(a)).to(xd.dtype)
        h = dot(y, tl.load(down + rows), h, PRECISION)
    tl.debug_barrier()
    return h


@triton.jit
def block_backward(g, zero, g_ptr, gd_ptr, x_ptr, rstd_ptr, up, up_bias, down, BM: tl.constexpr,
                   H: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr):
    """The cotangent g [BM, H] taken back through the block whose normalised input is parked.

    The wide layer is recomputed rather than kept. While its chunks pass, only the sum is live in
    registers: the cotangent waits at g_ptr and, in the weights' type, at gd_ptr.
    """
    columns = tl.arange(0, H) + opaque_zero(zero)
    row = tl.arange(0, BM)
    at = row[:, None] * H + columns[None, :]
    tl.store(g_ptr + at, g)
    gd = through_memory(g, gd_ptr + at)
    xd = tl.load(x_ptr + at)
    chunk = tl.arange(0, BC)
    inner_sum = tl.zeros(xd.shape, tl.float32)
    for c in range(0, 4 * H, BC):
        rows = (c + chunk)[:, None] * H + columns[None, :]
        up_c = tl.load(up + rows)
        a = dot(xd, tl.trans(up_c), None, PRECISION)
        a += tl.load(up_bias + c + chunk)[None, :]
        inner = dot(gd, tl.trans(tl.load(down + rows)), None, PRECISION) * silu_slope(a)
        inner_sum = dot(inner.to(xd.dtype), up_c, inner_sum, PRECISION)
    tl.debug_barrier()
    at += opaque_zero(zero)
    x = tl.load(x_ptr + at).to(tl.float32)
    mean = tl.sum(inner_sum, axis=1) / H
    along = tl.sum(inner_sum * x, axis=1) / H
    change = inner_sum - mean[:, None] - x * along[:, None]
    return tl.load(g_ptr + at) + tl.load(rstd_ptr + row)[:, None] * change


@triton.jit
def blocks_backward(g, zero, park, park32, up, up_bias, down, DEPTH: tl.constexpr,
                    BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr):
    """g taken back through blocks DEPTH-1 .. 0. Slot DEPTH of ``park`` and the first of ``park32``
    are g's."""
    for j in range(DEPTH):
        i = DEPTH - 1 - j
        g = block_backward(g, zero, park32, park + DEPTH * BM * H, park + i * BM * H,
                           park32 + 2 * BM * H + i * BM, up + i * 4 * H * H, up_bias + i * 4 * H,
                           down + i * 4 * H * H, BM, H, BC, PRECISION)
    return g


@triton.jit
def input_layer(z, w_in, dtype: tl.constexpr, PRECISION: tl.constexpr):
    """z W_in in the weights' type; in bf16 as three products of upper and lower halves, since z is
    the float32 state itself."""
    if dtype == tl.float32:
        return dot(z, w_in, None, PRECISION)
    z_high = z.to(dtype)
    w_high = w_in.to(dtype)
    h = dot((z - z_high.to(tl.float32)).to(dtype), w_high, None, PRECISION)
    h = dot(z_high, (w_in - w_high.to(tl.float32)).to(dtype), h, PRECISION)
    return dot(z_high, w_high, h, PRECISION)


@triton.jit
def network(z, base, zero, park, park32, input_z, up, up_bias, down, down_bias, output, output_bias, head,
            head_bias, head_output, head_output_bias, D: tl.constexpr, DP: tl.constexpr,
            BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr,
            EARLY: tl.constexpr, GUIDED: tl.constexpr, LN_EPS: tl.constexpr, PRECISION: tl.constexpr):
    """(eps, d eps_w / dz), both [BM, DP], of z [BM, DP]; base is the hoisted part of the input layer,
    [1, H] for a tile of one state, else [BM, H].

    With the early head the way back starts as soon as the second block is done, before the rest of
    the forward pass, so that a cotangent and a residual do not live side by side for long.

    ``park`` (the weights' type) has L + 1 slots [BM, H]: each block's normalised input, then g.
    ``park32`` has g and a waiting residual [BM, H], then L rows [BM] of 1 / std.
    """
    dtype: tl.constexpr = up.dtype.element_ty
    columns = tl.arange(0, H) + opaque_zero(zero)
    entries = tl.arange(0, DP)
    row = tl.arange(0, BM)
    park_at = row[:, None] * H + columns[None, :]
    rstds = park32 + 2 * BM * H
    in_at = input_z + entries[:, None] * H + columns[None, :]
    h = input_layer(z, tl.load(in_at), dtype, PRECISION) + base
    vjp = tl.zeros_like(z)
    eps_w = tl.zeros([BM], tl.float32)
    DEPTH: tl.constexpr = 2 if EARLY else L
    for i in range(DEPTH):
        h = block_forward(h, zero, park + i * BM * H, rstds + i * BM, up + i * 4 * H * H,
                          up_bias + i * 4 * H, down + i * 4 * H * H, down_bias + i * H, LN_EPS, BM, H, BC,
                          PRECISION)
    if EARLY:
        hd = through_memory(h, park + DEPTH * BM * H + park_at)
        tl.store(park32 + BM * H + park_at, h)
        g = tl.zeros_like(h)
        chunk = tl.arange(0, BC)
        for c in range(0, E, BC):
            head_c = tl.load(head + (c + chunk)[:, None] * H + columns[None, :])
            a = dot(hd, tl.trans(head_c), None, PRECISION)
            a += tl.load(head_bias + c + chunk)[None, :]
            out_c = tl.load(head_output + c + chunk)[None, :]
            eps_w += tl.sum(a * tl.sigmoid(a) * out_c, axis=1)
            if GUIDED:
                g = dot((silu_slope(a) * out_c).to(dtype), head_c, g, PRECISION)
        eps_w += tl.load(head_output_bias)
        if GUIDED:
            g = blocks_backward(g, zero, park, park32, up, up_bias, down, DEPTH, BM, H, BC, PRECISION)
            g = through_memory(g, park + DEPTH * BM * H + park_at)
            vjp = dot(g, tl.trans(tl.load(in_at).to(dtype)), None, PRECISION)
        tl.debug_barrier()
        h = tl.load(park32 + BM * H + park_at)
        for i in range(DEPTH, L):
            h = block_forward(h, zero, park + i * BM * H, rstds + i * BM, up + i * 4 * H * H,
                              up_bias + i * 4 * H, down + i * 4 * H * H, down_bias + i * H, LN_EPS, BM, H, BC,
                              PRECISION)
    if GUIDED and not EARLY:
        weight_row = tl.load(output + (D - 1) * H + columns).to(tl.float32)
        tl.store(park32 + park_at, silu_slope(h) * weight_row[None, :])
    y = through_memory(h * tl.sigmoid(h), park + L * BM * H + park_at)
    w_out = tl.load(output + entries[:, None] * H + columns[None, :])
    eps = dot(y, tl.trans(w_out), None, PRECISION)
    eps += tl.load(output_bias + entries)[None, :]
    if EARLY:
        eps = tl.where(entries[None, :] == D - 1, eps_w[:, None], eps)
    elif GUIDED:
        g = tl.load(park32 + park_at)
        g = blocks_backward(g, zero, park, park32, up, up_bias, down, DEPTH, BM, H, BC, PRECISION)
        g = through_memory(g, park + DEPTH * BM * H + park_at)
        vjp = dot(g, tl.trans(tl.load(in_at).to(dtype)), None, PRECISION)
    return eps, vjp


@triton.jit
def clip_latent(z, w_min, w_max, D: tl.constexpr, DP: tl.constexpr):
    """Actions to [-1, 1], the weight to [w_min, w_max], padding to 0."""
    entries = tl.arange(0, DP)[None, :]
    low = tl.where(entries == D - 1, w_min, -1.0)
    high = tl.where(entries == D - 1, w_max, 1.0)
    return tl.where(entries < D, tl.minimum(tl.maximum(z, low), high), 0.0)


@triton.jit
def update(z, eps, vjp, xi, row, w_min, w_max, D: tl.constexpr, DP: tl.constexpr,
           GUIDED: tl.constexpr, CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr):
    """One row of the sampler's table: (next z, its weight before the clip [BM], gradient)."""
    entries = tl.arange(0, DP)[None, :]
    last = entries == D - 1
    sigma = tl.load(row + SIGMA)
    gradient = tl.zeros_like(z)
    guided = eps
    if GUIDED:
        clean_w = tl.sum(tl.where(last, z - sigma * eps, 0.0), axis=1)
        weight = tl.load(row + READOUT) * clean_w
        inside = (weight >= w_min) & (weight <= w_max)
        gradient = (tl.where(last, 1.0, 0.0) - sigma * vjp) / tl.where(inside, clean_w, 1.0)[:, None]
        gradient = tl.where(inside[:, None] & (gradient == gradient), gradient, 0.0)
        guided = eps - tl.load(row + GUIDANCE) * gradient
    clean = tl.load(row + CLEAN_SCALE) * (z - sigma * guided)
    if CLIP_CLEAN:
        clean = clip_latent(clean, w_min, w_max, D, DP)
    z = tl.load(row + STATE) * z + tl.load(row + EPSILON) * guided + tl.load(row + CLEAN) * clean
    z += tl.load(row + NOISE) * xi
    z = tl.where(entries < D, z, 0.0)
    raw = tl.sum(tl.where(last, z, 0.0), axis=1)
    if CLIP_STATE:
        z = clip_latent(z, w_min, w_max, D, DP)
    return z, raw, gradient


@triton.jit
def guided_step_kernel(
    z_in, noise_in, state_vectors, time_row, row, w_min, w_max, zero, park, park32, z_out, weight_out,
    eps_out, gradient_out, M, k0, k1, candidates, state_words, states, step,
    input_z, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr, GUIDED: tl.constexpr,
    CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, DRAW: tl.constexpr, LN_EPS: tl.constexpr,
    PRECISION: tl.constexpr, PARKED: tl.constexpr,
    PARKED32: tl.constexpr,
):
    """One step of M rows [M, D]; row r belongs to row ``states[r]`` of state_vectors [B, H], and its
    noise to the counters candidates[r] and state_words[r], or is given where DRAW is false."""
    tile = tl.program_id(0)
    rows = tile * BM + tl.arange(0, BM)
    entries = tl.arange(0, DP)
    live = (rows < M)[:, None] & (entries < D)[None, :]
    at = rows[:, None] * D + entries[None, :]
    z = tl.load(z_in + at, mask=live, other=0.0)
    if DRAW:
        candidate = tl.load(candidates + rows, mask=rows < M, other=0).to(tl.uint32)
        word = tl.load(state_words + rows, mask=rows < M, other=0).to(tl.uint32)
        xi = normals(candidate, word[:, None], step.to(tl.uint32), k0.to(tl.uint32),
                     k1.to(tl.uint32), DP)
    else:
        xi = tl.load(noise_in + at, mask=live, other=0.0)
    columns = tl.arange(0, H)
    state = tl.load(states + rows, mask=rows < M, other=0)
    base = tl.load(state_vectors + state[:, None] * H + columns[None, :])
    base += tl.load(time_row + columns)[None, :]
    park += tile.to(tl.int64) * PARKED * BM
    park32 += tile.to(tl.int64) * PARKED32 * BM
    eps, vjp = network(z, base, zero, park, park32, input_z, up, up_bias, down, down_bias, output,
                       output_bias, head, head_bias, head_output, head_output_bias, D, DP, BM, H,
                       BC, L, E, EARLY, GUIDED, LN_EPS, PRECISION)
    z, raw, gradient = update(z, eps, vjp, xi, row, w_min, w_max, D, DP, GUIDED, CLIP_STATE, CLIP_CLEAN)
    tl.store(z_out + at, z, mask=live)
    tl.store(weight_out + rows, raw, mask=rows < M)
    tl.store(eps_out + at, eps, mask=live)
    tl.store(gradient_out + at, gradient, mask=live)


@triton.jit
def sample_kernel(
    state_vectors, state_words, time_table, table, w_min, w_max, initial_scale, gumbel_scale,
    zero, park, park32, best_score, best_index, best_weight, best_z, all_z, all_weight, B, N, first,
    tiles, programs, T, k0, k1,
    input_z, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr, GUIDED: tl.constexpr,
    CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr,
    LN_EPS: tl.constexpr, PRECISION: tl.constexpr, PARKED: tl.constexpr, PARKED32: tl.constexpr,
):
    """All T steps and the selection for B states of N candidates; ``tiles`` tiles a state.

    Candidates are first .. first + N - 1. A fixed set of programs takes (state, tile) pairs in turn.
    Each pair leaves its best candidate: best_score, best_index, best_weight
    [B, tiles] and best_z [B, tiles, DP].
    """
    program = tl.program_id(0)
    columns = tl.arange(0, H)
    entries = tl.arange(0, DP)
    park += program.to(tl.int64) * PARKED * BM
    park32 += program.to(tl.int64) * PARKED32 * BM
    key0 = k0.to(tl.uint32)
    key1 = k1.to(tl.uint32)
    for pair in range(program, B * tiles, programs):
        b = pair // tiles
        index = (pair % tiles) * BM + tl.arange(0, BM)
        candidate = (first + index).to(tl.uint32)
        state = tl.load(state_words + b).to(tl.uint32)
        z = initial_scale * normals(candidate, state, T.to(tl.uint32), key0, key1, DP)
        z = tl.where(entries[None, :] < D, z, 0.0)
        raw = tl.zeros([BM], tl.float32)
        for i in range(T):
            t = T - 1 - i
            # Fetched anew at each step: kept, it would hold 32 registers through all of them.
            base = tl.load(state_vectors + b * H + columns) + tl.load(time_table + t * H + columns)
            eps, vjp = network(z, base[None, :], zero, park, park32, input_z, up, up_bias, down, down_bias,
                               output, output_bias, head, head_bias, head_output, head_output_bias, D, DP, BM,
                               H, BC, L, E, EARLY, GUIDED, LN_EPS, PRECISION)
            xi = normals(candidate, state, t.to(tl.uint32), key0, key1, DP)
            z, raw, _ = update(z, eps, vjp, xi, table + t * 8, w_min, w_max, D, DP, GUIDED,
                               CLIP_STATE, CLIP_CLEAN)
        if WRITE_ALL:
            row = b.to(tl.int64) * N + index
            keep = (index < N)[:, None] & (entries < D)[None, :]
            tl.store(all_z + row[:, None] * D + entries[None, :], z, mask=keep)
            tl.store(all_weight + row, raw, mask=index < N)
        score = raw
        if SOFTMAX:
            score = tl.log(tl.maximum(raw, w_min)) * gumbel_scale
            score += gumbel(candidate, state, (T + 1).to(tl.uint32), key0, key1)
        score = tl.where((index < N) & (score == score), score, float("-inf"))
        top = tl.max(score, axis=0)
        at = tl.min(tl.where(score == top, index, 0x7FFFFFFF), axis=0)
        chosen = (index == at)
        tl.store(best_score + pair, top)
        tl.store(best_index + pair, at)
        tl.store(best_weight + pair, tl.sum(tl.where(chosen, raw, 0.0), axis=0))
        tl.store(best_z + pair * DP + entries, tl.sum(tl.where(chosen[:, None], z, 0.0), axis=0))


@triton.jit
def keep_best_kernel(best_score, best_index, best_weight, best_z, actions, weights, indices, tiles,
                     D: tl.constexpr, DP: tl.constexpr, BT: tl.constexpr):
    """Of each state's tiles, the best: actions [B, D-1], weights [B], indices [B]. The lowest
    index wins a tie, since tiles are in order."""
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
