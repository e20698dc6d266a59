"""The fused kernels: a tile of candidates walks through the whole guided sampler in one program.

D = A + 1 entries of z, padded to DP with zeros; L blocks; E the early head's width; other letters in
`kernels.fused.blocks`. A program's scratch is two private pieces of memory:

- ``low``, the weights' type: L + 2 slots [BM, H], each block's normalised input, the cotangent g of
  the residual stream, and what one stage's products leave for the next.
- ``wide``, float32: the residual stream h [BM, H]; L rows [BM] of 1 / std; z, eps, d eps_w / dz and
  the last x0 [BM, DP]; eps_w and the weight [BM].
"""

from __future__ import annotations

import triton
import triton.language as tl
from swg_fast.kernels.fused.blocks import (
    at_rows,
    block_backward,
    block_forward,
    early_head,
    input_product,
    read_out_rows,
    thin_product,
)
from swg_fast.kernels.shared.noise import gumbel, normals

# Columns of the sampler's table (kernels.shared.table.COLUMNS) by position.
SIGMA = tl.constexpr(0)
READOUT = tl.constexpr(1)
GUIDANCE = tl.constexpr(2)
CLEAN_SCALE = tl.constexpr(3)
STATE = tl.constexpr(4)
EPSILON = tl.constexpr(5)
CLEAN = tl.constexpr(6)
NOISE = tl.constexpr(7)
PREVIOUS = tl.constexpr(8)
COLUMNS = tl.constexpr(9)


@triton.jit
def z_slot(wide, BM: tl.constexpr, H: tl.constexpr, L: tl.constexpr):
    """z's place in ``wide``; eps, d eps_w / dz, the last x0, eps_w and the weight follow."""
    return wide + (H + L) * BM


@triton.jit
def network(low, wide, state_vectors, owners, time_row, input_z, up, up_bias, down, down_bias, output,
            output_bias, head, head_bias, head_output, head_output_bias, D: tl.constexpr, DP: tl.constexpr,
            BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr,
            EARLY: tl.constexpr, GUIDED: tl.constexpr, LN_EPS: tl.constexpr, PRECISION: tl.constexpr,
            OWNERS: tl.constexpr):
    """(eps, d eps_w / dz), both [BM, DP], of the z in scratch.

    With the early head the way back starts as soon as the second block is done; the stream waits in
    its slot and goes on from there.
    """
    BR: tl.constexpr = 32 if BM > 32 else BM
    SLOT: tl.constexpr = BM * H
    DEPTH: tl.constexpr = 2 if EARLY else L
    h = wide
    rstd = wide + SLOT
    z = z_slot(wide, BM, H, L)
    eps_w = z + 4 * BM * DP
    g = low + L * SLOT
    sums = low + (L + 1) * SLOT
    input_product(z, h, input_z, state_vectors, owners, time_row, D, DP, BM, H, BR, OWNERS)
    for i in tl.range(0, DEPTH, disable_licm=True):
        block_forward(h, sums, down_bias + (i - 1) * H, i, low + i * SLOT, rstd + i * BM, up + i * 4 * H * H,
                      up_bias + i * 4 * H, down + i * 4 * H * H, LN_EPS, BM, H, BC, BR, PRECISION)
    last_bias = down_bias + (DEPTH - 1) * H
    if EARLY:
        early_head(h, sums, last_bias, g, eps_w, head, head_bias, head_output, head_output_bias, BM, H, BC,
                   E, BR, GUIDED, PRECISION)
    else:
        read_out_rows(h, sums, last_bias, 1, output + (D - 1) * H, g, BM, H, BR, GUIDED, PRECISION)
        thin_product(sums, output, z + BM * DP, DP, BM, H, PRECISION)
    if GUIDED:
        for j in tl.range(0, DEPTH, disable_licm=True):
            i = DEPTH - 1 - j
            block_backward(g, sums, low + i * SLOT, rstd + i * BM, up + i * 4 * H * H, up_bias + i * 4 * H,
                           down + i * 4 * H * H, BM, H, BC, BR, PRECISION)
        thin_product(g, input_z, z + 2 * BM * DP, DP, BM, H, PRECISION)
    if EARLY:
        for i in tl.range(DEPTH, L, disable_licm=True):
            block_forward(h, sums, down_bias + (i - 1) * H, i - DEPTH, low + i * SLOT, rstd + i * BM,
                          up + i * 4 * H * H, up_bias + i * 4 * H, down + i * 4 * H * H, LN_EPS, BM, H, BC,
                          BR, PRECISION)
        read_out_rows(h, sums, down_bias + (L - 1) * H, L - DEPTH, output, g, BM, H, BR, False,
                      PRECISION)
        thin_product(sums, output, z + BM * DP, DP, BM, H, PRECISION)
    entries = tl.arange(0, DP)
    eps = tl.load(z + BM * DP + at_rows(0, BM, DP)) + tl.load(output_bias + entries)[None, :]
    if EARLY:
        eps = tl.where(entries[None, :] == D - 1, tl.load(eps_w + tl.arange(0, BM))[:, None], eps)
    vjp = tl.zeros_like(eps)
    if GUIDED:
        vjp = tl.load(z + 2 * BM * DP + at_rows(0, BM, DP))
    return eps, vjp


@triton.jit
def clip_latent(z, w_min, w_max, D: tl.constexpr, DP: tl.constexpr):
    """Actions to [-1, 1], the weight to [w_min, w_max], padding to 0."""
    entries = tl.arange(0, DP)[None, :]
    low = tl.where(entries == D - 1, w_min, -1.0)
    high = tl.where(entries == D - 1, w_max, 1.0)
    return tl.where(entries < D, tl.minimum(tl.maximum(z, low), high), 0.0)


@triton.jit
def update(z, eps, vjp, xi, last_clean, row, w_min, w_max, D: tl.constexpr, DP: tl.constexpr,
           GUIDED: tl.constexpr, CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr,
           MULTISTEP: tl.constexpr):
    """One row of the sampler's table: (next z, its weight before any clip [BM], gradient, x0). Of
    ``last_clean``, the x0 before, nothing is read where MULTISTEP is false."""
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
    clipped = tl.zeros_like(z)
    if CLIP_CLEAN:
        inner = clip_latent(clean, w_min, w_max, D, DP)
        clipped = tl.load(row + CLEAN) * (clean - inner)  # what it takes off the new z
        clean = inner
    z = tl.load(row + STATE) * z + tl.load(row + EPSILON) * guided + tl.load(row + CLEAN) * clean
    z += tl.load(row + NOISE) * xi
    if MULTISTEP:
        z += tl.load(row + PREVIOUS) * last_clean
    z = tl.where(entries < D, z, 0.0)
    raw = tl.sum(tl.where(last, z + clipped, 0.0), axis=1)
    if CLIP_STATE:
        z = clip_latent(z, w_min, w_max, D, DP)
    return z, raw, gradient, clean


# Launchers make a kernel of its own for an argument that is 1 or a multiple of 16. A seed, a step or a
# number of candidates must not: one kernel serves all.
WHOLE_NUMBERS = ("B", "N", "M", "first", "tiles", "programs", "rows", "T", "k0", "k1", "step")


@triton.jit(do_not_specialize=["M", "k0", "k1", "step"])
def guided_step_kernel(
    z_in, clean_in, noise_in, state_vectors, time_row, row, w_min, w_max, low, wide, z_out, weight_out,
    eps_out, gradient_out, clean_out, M, k0, k1, candidates, state_words, owners, step,
    input_z, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr, GUIDED: tl.constexpr,
    CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr, DRAW: tl.constexpr,
    LN_EPS: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr, WIDE: tl.constexpr,
):
    """One step of M rows [M, D]; row r belongs to row ``owners[r]`` of state_vectors [B, H] (owners
    is padded to whole tiles), and its noise to the counters candidates[r] and state_words[r], or is
    given where DRAW is false."""
    tile = tl.program_id(0)
    rows = tile * BM + tl.arange(0, BM)
    entries = tl.arange(0, DP)
    live = (rows < M)[:, None] & (entries < D)[None, :]
    at = rows[:, None] * D + entries[None, :]
    low += tile.to(tl.int64) * LOW
    wide += tile.to(tl.int64) * WIDE
    z = tl.load(z_in + at, mask=live, other=0.0)
    tl.store(z_slot(wide, BM, H, L) + at_rows(0, BM, DP), z)
    tl.debug_barrier()
    eps, vjp = network(low, wide, state_vectors, owners + tile * BM, time_row, input_z, up, up_bias, down,
                       down_bias, output, output_bias, head, head_bias, head_output, head_output_bias, D, DP,
                       BM, H, BC, L, E, EARLY, GUIDED, LN_EPS, PRECISION, True)
    if DRAW:
        candidate = tl.load(candidates + rows, mask=rows < M, other=0).to(tl.uint32)
        word = tl.load(state_words + rows, mask=rows < M, other=0).to(tl.uint32)
        xi = normals(candidate, word[:, None], step.to(tl.uint32), k0.to(tl.uint32),
                     k1.to(tl.uint32), DP)
    else:
        xi = tl.load(noise_in + at, mask=live, other=0.0)
    clean = z
    if MULTISTEP:
        clean = tl.load(clean_in + at, mask=live, other=0.0)
    z, raw, gradient, clean = update(z, eps, vjp, xi, clean, row, w_min, w_max, D, DP, GUIDED, CLIP_STATE,
                                     CLIP_CLEAN, MULTISTEP)
    if MULTISTEP:
        tl.store(clean_out + at, clean, mask=live)
    tl.store(z_out + at, z, mask=live)
    tl.store(weight_out + rows, raw, mask=rows < M)
    tl.store(eps_out + at, eps, mask=live)
    tl.store(gradient_out + at, gradient, mask=live)


@triton.jit(do_not_specialize=["B", "N", "first", "tiles", "programs", "rows", "T", "k0", "k1"])
def sample_kernel(
    state_vectors, state_words, time_table, table, steps, w_min, w_max, initial_scale, gumbel_scale,
    low, wide, best_score, best_index, best_weight, best_z, all_z, all_weight, B, N, first,
    tiles, programs, rows, T, k0, k1,
    input_z, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr, GUIDED: tl.constexpr,
    CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr, SOFTMAX: tl.constexpr,
    WRITE_ALL: tl.constexpr, LN_EPS: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
    WIDE: tl.constexpr,
):
    """All rows of the sampler's table and the selection for B states of N candidates; ``tiles`` tiles a
    state. Row j belongs to the trained step ``steps[j]`` of T.

    Candidates are first .. first + N - 1. A fixed set of programs takes (state, tile) pairs in turn.
    Each pair leaves its best candidate: best_score, best_index, best_weight
    [B, tiles] and best_z [B, tiles, DP].
    """
    program = tl.program_id(0)
    entries = tl.arange(0, DP)
    low += program.to(tl.int64) * LOW
    wide += program.to(tl.int64) * WIDE
    z_at = z_slot(wide, BM, H, L)
    clean_at = z_at + 3 * DP * BM
    weight_at = z_at + (4 * DP + 1) * BM
    key0 = k0.to(tl.uint32)
    key1 = k1.to(tl.uint32)
    for pair in tl.range(program, B * tiles, programs, disable_licm=True):
        b = pair // tiles
        start = (pair % tiles) * BM
        state = tl.load(state_words + b).to(tl.uint32)
        candidate = (first + start + tl.arange(0, BM)).to(tl.uint32)
        z = initial_scale * normals(candidate, state, T.to(tl.uint32), key0, key1, DP)
        tl.store(z_at + at_rows(0, BM, DP), tl.where(entries[None, :] < D, z, 0.0))
        if MULTISTEP:
            tl.store(clean_at + at_rows(0, BM, DP), tl.zeros([BM, DP], tl.float32))
        tl.debug_barrier()
        for i in tl.range(0, rows, disable_licm=True):
            j = rows - 1 - i
            t = tl.load(steps + j)
            eps, vjp = network(low, wide, state_vectors + b * H, state_words, time_table + t * H, input_z, up,
                               up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
                               head_output_bias, D, DP, BM, H, BC, L, E, EARLY, GUIDED, LN_EPS, PRECISION,
                               False)
            candidate = (first + start + tl.arange(0, BM)).to(tl.uint32)
            xi = normals(candidate, state, t.to(tl.uint32), key0, key1, DP)
            z = tl.load(z_at + at_rows(0, BM, DP))
            clean = z
            if MULTISTEP:
                clean = tl.load(clean_at + at_rows(0, BM, DP))
            z, raw, _, clean = update(z, eps, vjp, xi, clean, table + j * COLUMNS, w_min, w_max, D, DP,
                                      GUIDED, CLIP_STATE, CLIP_CLEAN, MULTISTEP)
            if MULTISTEP:
                tl.store(clean_at + at_rows(0, BM, DP), clean)
            tl.store(z_at + at_rows(0, BM, DP), z)
            tl.store(weight_at + tl.arange(0, BM), raw)
            tl.debug_barrier()
        index = start + tl.arange(0, BM)
        z = tl.load(z_at + at_rows(0, BM, DP))
        raw = tl.load(weight_at + tl.arange(0, BM))
        if WRITE_ALL:
            row = b.to(tl.int64) * N + index
            keep = (index < N)[:, None] & (entries < D)[None, :]
            tl.store(all_z + row[:, None] * D + entries[None, :], z, mask=keep)
            tl.store(all_weight + row, raw, mask=index < N)
        score = raw
        if SOFTMAX:
            score = tl.log(tl.maximum(raw, w_min)) * gumbel_scale
            score += gumbel((first + index).to(tl.uint32), state, (T + 1).to(tl.uint32), key0, key1)
        score = tl.where((index < N) & (score == score), score, float("-inf"))
        top = tl.max(score, axis=0)
        at = tl.min(tl.where(score == top, index, 0x7FFFFFFF), axis=0)
        chosen = (index == at)
        tl.store(best_score + pair, top)
        tl.store(best_index + pair, at)
        tl.store(best_weight + pair, tl.sum(tl.where(chosen, raw, 0.0), axis=0))
        tl.store(best_z + pair * DP + entries, tl.sum(tl.where(chosen[:, None], z, 0.0), axis=0))
        tl.debug_barrier()  # the next pair writes where this one read


@triton.jit(do_not_specialize=["tiles"])
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
