"""Work between two passes of the layered kernels (`kernels`): the sampler's update, the next row's input
layer, and finally the selection.

Numbers that vary between decisions are read from memory, so that captured launches serve all decisions of a
shape: ``words`` [2] int64 holds the seed and the first candidate. Row r is candidate r - N b of state b =
owners[r].
"""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.layered.kernels import cotangent
from swg_fast.kernels.fused.portable.sampler_row import COLUMNS, update
from swg_fast.kernels.fused.portable.selection import keep_of_tile
from swg_fast.kernels.fused.portable.stages import at_rows, dot, operand
from swg_fast.kernels.fused.portable.tiles import tile_of
from swg_fast.kernels.shared.philox import normals


@triton.jit(do_not_specialize=["S"])
def hoist_kernel(states, state_rows, vectors, S, H: tl.constexpr):
    """The product of a state [S] with ``state_rows`` [S, H], in float32: what the state adds to the input
    layer. A captured product of cuBLAS would share its workspace with other graphs."""
    state = tl.program_id(0).to(tl.int64)  # states may be long
    columns = tl.arange(0, H)
    total = tl.zeros([H], tl.float32)
    for s in range(S):
        total += tl.load(states + state * S + s) * tl.load(state_rows + s * H + columns)
    tl.store(vectors + state * H + columns, total)


@triton.jit
def keys(words):
    """The seed's two words."""
    seed = tl.load(words)
    return seed.to(tl.uint32), (seed >> 32).to(tl.uint32)


@triton.jit(do_not_specialize=["N", "R", "T", "j"])
def step_kernel(
    z, clean, weight, h, read, g, inner, x, rstd, parts, words, owners, state_vectors, state_words,
    time_table, table, steps, w_min, w_max, initial_scale, N, R, T, j, input_z, output, output_bias,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    PARTS: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr, GUIDED: tl.constexpr,
    CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr, PRECISION: tl.constexpr,
):
    """Takes BM rows from row j of the sampler's table to row j - 1: computes eps and d eps_w / dz from the
    network's last activations, updates z, x0 and the unclipped weight by row j, and starts the stream of row
    j - 1. BEGIN draws z instead; END starts no stream. ``parts`` [PARTS, R] sum to eps_w of an early head."""
    dtype: tl.constexpr = output.dtype.element_ty
    first = tl.program_id(0) * BM
    rows = first + tl.arange(0, BM)
    entries = tl.arange(0, DP)
    columns = tl.arange(0, H)
    owner = tl.load(owners + rows).to(tl.int32)
    into = tl.load(input_z + at_rows(0, DP, H))
    key0, key1 = keys(words)
    state = tl.load(state_words + owner).to(tl.uint32)[:, None]
    candidate = tl.load(words + 1).to(tl.uint32) + (rows - owner * N).to(tl.uint32)
    if BEGIN:
        new = initial_scale * normals(candidate, state, T.to(tl.uint32), key0, key1, DP)
        new = tl.where(entries[None, :] < D, new, 0.0)
        if MULTISTEP:
            tl.store(clean + at_rows(first, BM, DP), tl.zeros([BM, DP], tl.float32))
    else:
        finished = tl.load(read + at_rows(first, BM, H))
        eps = dot(finished, tl.trans(tl.load(output + at_rows(0, DP, H))), None, PRECISION)
        eps += tl.load(output_bias + entries)[None, :]
        if PARTS > 0:
            eps_w = tl.zeros([BM], tl.float32)
            for c in tl.static_range(PARTS):
                eps_w += tl.load(parts + c * R + rows)
            eps_w += tl.load(head_output_bias)
            eps = tl.where(entries[None, :] == D - 1, eps_w[:, None], eps)
        vjp = tl.zeros([BM, DP], tl.float32)
        if GUIDED:
            back = operand(cotangent(g, inner, x, rstd, first, BM, H), dtype, PRECISION)
            vjp = dot(back, tl.trans(operand(into, dtype, PRECISION)), None, PRECISION)
        old = tl.load(z + at_rows(first, BM, DP))
        last = old
        if MULTISTEP:
            last = tl.load(clean + at_rows(first, BM, DP))
        xi = normals(candidate, state, tl.load(steps + j).to(tl.uint32), key0, key1, DP)
        new, raw, _, x0 = update(old, eps, vjp, xi, last, entries[None, :], table + j * COLUMNS, w_min, w_max,
                                 D, GUIDED, CLIP_STATE, CLIP_CLEAN, MULTISTEP)
        if MULTISTEP:
            tl.store(clean + at_rows(first, BM, DP), x0)
        tl.store(weight + rows, raw)
    tl.debug_barrier()  # all threads have read the old z
    tl.store(z + at_rows(first, BM, DP), new)
    if not END:
        stream = tl.load(state_vectors + owner[:, None] * H + columns[None, :])
        stream += tl.load(time_table + tl.load(steps + j - 1) * H + columns)[None, :]
        # z is the fp32 state: three products of tf32 parts keep 21 bits of it.
        stream = tl.dot(new, into, stream, input_precision="ieee" if dtype == tl.float32 else "tf32x3")
        tl.store(h + at_rows(first, BM, H), stream)


@triton.jit(do_not_specialize=["B", "N", "slots", "T"])
def keep_kernel(z, weight, words, state_words, w_min, gumbel_scale, best_score, best_index, best_weight,
                best_z, all_z, all_weight, B, N, slots, T, D: tl.constexpr, DP: tl.constexpr,
                BM: tl.constexpr, SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr, MIXED: tl.constexpr):
    """The best of each state among BM finished candidates (`portable.selection`). z and the weight have BM
    rows beyond the last; scores may replace the weight."""
    number = tl.program_id(0)
    tile = tile_of(number, 0, BM, 1, B * N, BM, False)
    key0, key1 = keys(words)
    keep_of_tile(z + tile.start * DP, weight + tile.start, weight, tile, number, N, slots, BM, 1,
                 tl.load(words + 1), state_words, T, key0, key1, w_min, gumbel_scale, best_score, best_index,
                 best_weight, best_z, all_z, all_weight, weight, D, DP, BM, False, SOFTMAX, WRITE_ALL, MIXED)
