"""The fused kernel: a program takes a tile of candidates through the whole guided sampler.

D = A + 1 entries of z, padded to DP with zeros; L blocks; E the early head's width; other letters in
`kernels.fused.portable.stages`. A program's scratch is two private buffers:

- ``low``, the weights' type: L + 2 slots [BM, H] for each block's normalised input, the cotangent g of the
  residual stream, and one stage's results for the next. Unguided there are two: for the present block's
  normalised input, and for a stage's results.
- ``wide``, float32: the residual stream h [BM, H]; L rows [BM] of 1 / std (none if unguided); z, eps,
  d eps_w / dz and the last x0 [BM, DP] (the finished z replaces x0 during a ranking); eps_w, the weight, the
  ranking's score [BM].
"""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.fused.portable.phases import begin, leave_roots, noise_again
from swg_fast.kernels.fused.portable.sampler_row import COLUMNS, GUIDANCE, update
from swg_fast.kernels.fused.portable.selection import keep_of_tile
from swg_fast.kernels.fused.portable.stages import (
    at_rows,
    block_backward,
    block_forward,
    early_head,
    input_product,
    read_out_rows,
    thin_product,
)
from swg_fast.kernels.fused.portable.tiles import noise_words, tile_of
from swg_fast.kernels.shared.philox import normals


@triton.jit
def z_slot(wide, BM: tl.constexpr, H: tl.constexpr, L: tl.constexpr, GUIDED: tl.constexpr):
    """z's place in ``wide``; eps, d eps_w / dz, the last x0, eps_w, the weight and the score follow."""
    return wide + (H + (L if GUIDED else 0)) * BM


@triton.jit
def network(low, wide, state_vectors, tile, N, time_row, input_z, up, up_bias, down, down_bias, output,
            output_bias, head, head_bias, head_output, head_output_bias, D: tl.constexpr, DP: tl.constexpr,
            BM: tl.constexpr, H: tl.constexpr, BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr,
            EARLY: tl.constexpr, GUIDED: tl.constexpr, PARTLY: tl.constexpr, LN_EPS: tl.constexpr,
            PRECISION: tl.constexpr, MIXED: tl.constexpr, whole, back):
    """(eps, d eps_w / dz), both [BM, DP], of the z in scratch; if ``whole`` is 0, eps_w alone; if ``back`` is
    0, eps alone.

    With the early head the backward pass starts after the second block. The stream waits in its slot, and the
    forward pass resumes from there.
    """
    BR: tl.constexpr = 32 if BM > 32 else BM
    SLOT: tl.constexpr = BM * H
    DEPTH: tl.constexpr = 2 if EARLY else L
    h = wide
    rstd = wide + SLOT
    z = z_slot(wide, BM, H, L, GUIDED)
    eps_w = z + 4 * BM * DP
    g = low + L * SLOT
    sums = low + ((L + 1) if GUIDED else 1) * SLOT
    input_product(z, h, input_z, state_vectors, tile, N, time_row, D, DP, BM, H, 16 if MIXED else BR, MIXED)
    for i in tl.range(0, DEPTH, disable_licm=True):
        block_forward(h, sums, down_bias + (i - 1) * H, i, low + (i * SLOT if GUIDED else 0), rstd + i * BM,
                      up + i * 4 * H * H, up_bias + i * 4 * H, down + i * 4 * H * H, LN_EPS, BM, H, BC, BR,
                      GUIDED, PRECISION)
    last_bias = down_bias + (DEPTH - 1) * H
    if EARLY:
        early_head(h, sums, last_bias, g, eps_w, head, head_bias, head_output, head_output_bias, BM, H, BC,
                   E, BR, GUIDED, PRECISION)
    else:
        read_out_rows(h, sums, last_bias, 1, output + (D - 1) * H, g, BM, H, BR, GUIDED, PRECISION)
        thin_product(sums, output, z + BM * DP, DP, BM, H, PRECISION)
    if GUIDED:  # noqa: SIM102 - decided by the compiler, the next by the kernel
        if back:
            for j in tl.range(0, DEPTH, disable_licm=True):
                i = DEPTH - 1 - j
                block_backward(g, sums, low + i * SLOT, rstd + i * BM, up + i * 4 * H * H,
                               up_bias + i * 4 * H, down + i * 4 * H * H, BM, H, BC, BR, PRECISION)
            thin_product(g, input_z, z + 2 * BM * DP, DP, BM, H, PRECISION)
    if EARLY:  # noqa: SIM102
        if whole:
            for i in tl.range(DEPTH, L, disable_licm=True):
                block_forward(h, sums, down_bias + (i - 1) * H, i - DEPTH, low + (i * SLOT if GUIDED else 0),
                              rstd, up + i * 4 * H * H, up_bias + i * 4 * H, down + i * 4 * H * H, LN_EPS, BM,
                              H, BC, BR, False, PRECISION)
            read_out_rows(h, sums, down_bias + (L - 1) * H, L - DEPTH, output, g, BM, H, BR, False, PRECISION)
            thin_product(sums, output, z + BM * DP, DP, BM, H, PRECISION)
    entries = tl.arange(0, DP)
    eps = tl.load(z + BM * DP + at_rows(0, BM, DP)) + tl.load(output_bias + entries)[None, :]
    if EARLY:
        eps = tl.where(entries[None, :] == D - 1, tl.load(eps_w + tl.arange(0, BM))[:, None], eps)
    vjp = tl.zeros_like(eps)
    if GUIDED:
        vjp = tl.load(z + 2 * BM * DP + at_rows(0, BM, DP))
        if PARTLY:
            vjp = tl.where(back, vjp, 0.0)
    return eps, vjp


# Triton compiles a kernel again for an integer that is 1 or a multiple of 16. Not for these: one kernel
# serves all seeds, steps and numbers of candidates.
WHOLE_NUMBERS = ("B", "N", "first", "items", "programs", "rows", "T", "k0", "k1", "leaves", "shared", "group",
                 "phases", "draws", "slots", "stride", "tiles")


@triton.jit(do_not_specialize=["B", "N", "first", "items", "programs", "rows", "T", "k0", "k1", "leaves",
                               "shared", "group", "phases", "draws", "slots"])
def sample_kernel(
    state_vectors, state_words, time_table, table, steps, w_min, w_max, initial_scale, gumbel_scale,
    ranking_mean, low, wide, roots, best_score, best_index, best_weight, best_z, all_z, all_weight,
    all_expected, B, N, first, items, programs, rows, T, k0, k1, leaves, shared, group, phases, draws,
    slots, input_z, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, H: tl.constexpr,
    BC: tl.constexpr, L: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr, GUIDED: tl.constexpr,
    PARTLY: tl.constexpr, CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr,
    TREE: tl.constexpr, RANK: tl.constexpr, SOFTMAX: tl.constexpr, WRITE_ALL: tl.constexpr,
    MIXED: tl.constexpr, LN_EPS: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr, WIDE: tl.constexpr,
):
    """All rows of the sampler's table and the selection for B states of N candidates, in ``items`` work items
    (`tiles`). Row j of the table belongs to the trained step ``steps[j]`` of T; if RANK, row ``rows`` is the
    ranking's. If PARTLY, rows whose guidance is 0 have no way back.

    Candidates are first .. first + N - 1 of every state. A fixed set of programs takes the items in turn. An
    item is a tile; if TREE, it is ``group`` roots of ``leaves`` leaves, in 1 + tiles phases (`phases`). Each
    tile writes its best candidate of each of its states to best_score, best_index, best_weight [B, slots] and
    best_z [B, slots, DP].

    The arguments are not grouped in records: Triton specialises, types and aligns by argument, and
    ``do_not_specialize`` names arguments, not fields of a record.
    """
    program = tl.program_id(0)
    low += program.to(tl.int64) * LOW
    wide += program.to(tl.int64) * WIDE
    roots += program.to(tl.int64) * 2 * BM * DP
    z_at = z_slot(wide, BM, H, L, GUIDED)
    clean_at = z_at + 3 * DP * BM
    weight_at = z_at + (4 * DP + 1) * BM
    score_at = weight_at + BM
    key0 = k0.to(tl.uint32)
    key1 = k1.to(tl.uint32)
    for turn in tl.range(0, tl.cdiv(items - program, programs) * phases, disable_licm=True):
        item = program + turn // phases * programs
        phase = turn % phases
        tile = tile_of(item, phase, group, leaves, B * N, BM, TREE)
        top = rows - 1
        length = rows
        if TREE:
            top = tl.where(phase == 0, top, top - shared)
            length = tl.where(phase == 0, shared, rows - shared)
        walked = length
        if RANK:
            walked += draws
            if TREE:
                walked = tl.where(phase == 0, length, walked)
        candidate, state = noise_words(tl.arange(0, BM), tile, N, first, state_words, MIXED)
        begin(z_at, clean_at, roots, candidate, state, T.to(tl.uint32), key0, key1, initial_scale, phase,
              leaves, D, DP, BM, MULTISTEP, TREE)
        for i in tl.range(0, walked, disable_licm=True):
            j = top - i
            whole = True
            if RANK:
                draw = i - length
                if draw >= 0:
                    again, of = noise_words(tl.arange(0, BM), tile, N, first, state_words, MIXED)
                    noise_again(z_at, clean_at, table + rows * COLUMNS, draw, again, of,
                                (T + 2 + draw).to(tl.uint32), key0, key1, ranking_mean, D, DP, BM)
                j = tl.where(draw >= 0, rows, j)
                whole = draw < 0
            back = whole
            if PARTLY:  # the ranking's row has no guidance
                back = tl.load(table + j * COLUMNS + GUIDANCE) != 0.0
            t = tl.load(steps + j)
            eps, vjp = network(low, wide, state_vectors, tile, N, time_table + t * H, input_z, up, up_bias,
                               down, down_bias, output, output_bias, head, head_bias, head_output,
                               head_output_bias, D, DP, BM, H, BC, L, E, EARLY, GUIDED, PARTLY, LN_EPS,
                               PRECISION, MIXED, whole, back)
            candidate, state = noise_words(tl.arange(0, BM), tile, N, first, state_words, MIXED)
            xi = normals(candidate, state, t.to(tl.uint32), key0, key1, DP)
            z = tl.load(z_at + at_rows(0, BM, DP))
            last = z
            if MULTISTEP:
                last = tl.load(clean_at + at_rows(0, BM, DP))
            z, raw, _, clean = update(z, eps, vjp, xi, last, tl.arange(0, DP)[None, :], table + j * COLUMNS,
                                      w_min, w_max, D, GUIDED, CLIP_STATE, CLIP_CLEAN, MULTISTEP)
            lanes = tl.arange(0, BM)
            if RANK:
                score = tl.where(draw > 0, tl.load(score_at + lanes), 0.0)
                tl.store(score_at + lanes, score + raw / draws)
                raw = tl.where(draw >= 0, tl.load(weight_at + lanes), raw)
                clean = tl.where(draw >= 0, last, clean)
            if MULTISTEP:
                tl.store(clean_at + at_rows(0, BM, DP), clean)
            tl.store(z_at + at_rows(0, BM, DP), z)
            tl.store(weight_at + lanes, raw)
            tl.debug_barrier()
        finished = clean_at if RANK else z_at
        if TREE:
            if phase == 0:
                leave_roots(z_at, clean_at, roots, BM, DP, MULTISTEP)
            else:
                keep_of_tile(finished, weight_at, score_at, tile, item * (phases - 1) + phase - 1, N, slots,
                             group * leaves, phases - 1, first, state_words, T, key0, key1, w_min,
                             gumbel_scale, best_score, best_index, best_weight, best_z, all_z, all_weight,
                             all_expected, D, DP, BM, RANK, SOFTMAX, WRITE_ALL, MIXED)
        else:
            keep_of_tile(finished, weight_at, score_at, tile, item, N, slots, BM, 1, first, state_words, T,
                         key0, key1, w_min, gumbel_scale, best_score, best_index, best_weight, best_z, all_z,
                         all_weight, all_expected, D, DP, BM, RANK, SOFTMAX, WRITE_ALL, MIXED)
        tl.debug_barrier()  # the next turn overwrites what this one read
