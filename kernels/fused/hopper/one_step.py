"""One guided step of given rows by the Gluon network of `kernels.fused.hopper.network`, with the arguments of
`kernels.fused.portable.kernels.guided_step_kernel`."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from swg_fast.kernels.fused.hopper.kernels import noise
from swg_fast.kernels.fused.hopper.network import network
from swg_fast.kernels.fused.hopper.shared_memory import ROWS, send_network, shared_memory
from swg_fast.kernels.fused.portable.sampler_row import update


@gluon.jit
def step_producer(up, down, head, ends, memory, L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr,
                  H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr):
    send_network(up, down, head, ends, gl.to_tensor(0), memory, True, L, E, GUIDED, H, BC, SLOTS)


@gluon.jit
def step_consumer(rows_in, rows_out, row, low, wide, weights, memory, M, step, k0, k1, w_min, w_max,
                  GROUP: gl.constexpr, DRAW: gl.constexpr, CLIP_STATE: gl.constexpr, CLIP_CLEAN: gl.constexpr,
                  MULTISTEP: gl.constexpr, D: gl.constexpr, DP: gl.constexpr, L: gl.constexpr,
                  E: gl.constexpr, GUIDED: gl.constexpr, H: gl.constexpr, BC: gl.constexpr,
                  SLOTS: gl.constexpr, LN_EPS: gl.constexpr):
    """Warp group GROUP's 64 rows. ``rows_in``: z, the last x0, noise, state vectors, owners, candidates,
    state words, the time table's row; ``rows_out``: z, weight, eps, gradient, x0."""
    wide_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, H, 16])
    thin: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BC, 16])
    few: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    lhs: gl.constexpr = gl.DotOperandLayout(0, wide_layout, 2)
    worker = gl.program_id(0) * 2 + GROUP
    low += worker.to(gl.int64) * (L - 1) * ROWS * H
    wide += worker.to(gl.int64) * (4 * DP + H + 2) * ROWS
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, few))
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    columns = gl.arange(0, H, gl.SliceLayout(0, wide_layout))
    rows = worker * ROWS + lanes
    at = rows[:, None] * D + entries[None, :]
    live = (rows < M)[:, None] & (entries < D)[None, :]
    owner = gl.load(rows_in[4] + worker * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, wide_layout)))
    base = gl.load(rows_in[3] + owner[:, None] * H + columns[None, :])
    base += gl.load(rows_in[7] + columns)[None, :]
    z = gl.load(rows_in[0] + at, mask=live, other=0.0)
    network(z, base, low, wide, weights, gl.to_tensor(0), memory, True, GROUP, D, DP, L, E, GUIDED, H, BC,
            SLOTS, LN_EPS, wide_layout, thin, few, lhs)
    few_at = lanes[:, None] * DP + entries[None, :]
    eps = gl.load(wide + few_at)
    vjp = gl.zeros([ROWS, DP], gl.float32, few)
    if GUIDED:
        vjp = gl.load(wide + ROWS * DP + few_at)
    if DRAW:
        candidate = gl.load(rows_in[5] + rows, mask=rows < M, other=0)
        word = gl.load(rows_in[6] + rows, mask=rows < M, other=0).to(gl.uint32)
        xi = noise(candidate, word[:, None], step, k0, k1, DP, few)
    else:
        xi = gl.load(rows_in[2] + at, mask=live, other=0.0)
    z = gl.load(rows_in[0] + at, mask=live, other=0.0)
    clean = z
    if MULTISTEP:
        clean = gl.load(rows_in[1] + at, mask=live, other=0.0)
    z, raw, gradient, clean = update(z, eps, vjp, xi, clean, entries[None, :], row, w_min, w_max, D, GUIDED,
                                     CLIP_STATE, CLIP_CLEAN, MULTISTEP)
    gl.store(rows_out[0] + at, z, mask=live)
    gl.store(rows_out[1] + rows, raw, mask=rows < M)
    gl.store(rows_out[2] + at, eps, mask=live)
    gl.store(rows_out[3] + at, gradient, mask=live)
    if MULTISTEP:
        gl.store(rows_out[4] + at, clean, mask=live)


@gluon.jit(do_not_specialize=["M", "k0", "k1", "step"])
def guided_step_kernel(
    z_in, clean_in, noise_in, state_vectors, time_row, row, w_min, w_max, low, wide, z_out, weight_out,
    eps_out, gradient_out, clean_out, M, k0, k1, candidates, state_words, owners, step,
    ends, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: gl.constexpr, DP: gl.constexpr, BC: gl.constexpr, H: gl.constexpr, L: gl.constexpr,
    E: gl.constexpr, GUIDED: gl.constexpr, CLIP_STATE: gl.constexpr, CLIP_CLEAN: gl.constexpr,
    MULTISTEP: gl.constexpr, DRAW: gl.constexpr, LN_EPS: gl.constexpr, SLOTS: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """As `kernels.fused.portable.kernels.guided_step_kernel`, 64 rows a warp group."""
    memory = shared_memory(up, L, H, BC, SLOTS)
    weights = (up_bias, down_bias, output, output_bias, head_bias, head_output, head_output_bias)
    rows_in = (z_in, clean_in, noise_in, state_vectors, owners, candidates, state_words, time_row)
    rows_out = (z_out, weight_out, eps_out, gradient_out, clean_out)
    key0 = k0.to(gl.uint32)
    key1 = k1.to(gl.uint32)
    gl.warp_specialize([
        (step_consumer, (rows_in, rows_out, row, low, wide, weights, memory, M, step, key0, key1, w_min,
                         w_max, gl.constexpr(0), DRAW, CLIP_STATE, CLIP_CLEAN, MULTISTEP, D, DP, L, E, GUIDED,
                         H, BC, SLOTS, LN_EPS)),
        (step_consumer, (rows_in, rows_out, row, low, wide, weights, memory, M, step, key0, key1, w_min,
                         w_max, gl.constexpr(1), DRAW, CLIP_STATE, CLIP_CLEAN, MULTISTEP, D, DP, L, E, GUIDED,
                         H, BC, SLOTS, LN_EPS)),
        (step_producer, (up, down, head, ends, memory, L, E, GUIDED, H, BC, SLOTS)),
    ], [4, 1], [REGISTERS, 24])
