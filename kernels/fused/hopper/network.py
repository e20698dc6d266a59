"""The guided network in Gluon for sm_90, for tiles of 64 rows in bf16.

A program has two tiles, one for each warp group, and a producer warp that streams weights to both
(`shared_memory`). A warp group keeps the stream h [64, H] in its accumulators during the forward pass, and
the normalised input x and the cotangent g in shared memory. It issues the next chunk's first product before
it waits for the current chunk's second (`stages`). The two groups run out of step, so that one computes SiLU
during the other's products. Earlier blocks' x, h during the early head, eps and z wait in global scratch,
where each thread reads only what it wrote: only the ring's barriers order the warp groups.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from swg_fast.kernels.fused.hopper.shared_memory import INPUT, ROWS
from swg_fast.kernels.fused.hopper.stages import (
    block_backward,
    block_forward,
    early_head,
    halved,
    input_layer,
    normalise,
    read_out,
    tanh,
    thin_product,
)
from swg_fast.kernels.fused.hopper.triton_compat import barrier


@gluon.jit
def network(z, base, low, wide_scratch, weights, k, memory, whole, back, GROUP: gl.constexpr,
            D: gl.constexpr, DP: gl.constexpr, L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr,
            H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr, LN_EPS: gl.constexpr, wide: gl.constexpr,
            thin: gl.constexpr, few: gl.constexpr, lhs: gl.constexpr):
    """Writes eps and d eps_w / dz of z, both [64, DP], to ``wide_scratch`` and 64 DP further. z is in
    registers; ``base`` [64, H] is the rest of the input layer. If ``whole`` is 0, only eps_w is computed; if
    ``back`` is 0, only eps. Returns the ring's next slot.

    With the early head the backward pass starts after the second block. h waits in scratch, and the forward
    pass resumes from there. ``low`` has room for x [64, H] of L - 1 blocks; h [64, H] follows eps and d eps_w
    / dz.
    """
    DEPTH: gl.constexpr = 2 if E > 0 else L
    x, g = memory.x.index(GROUP), memory.g.index(GROUP)
    up_bias, down_bias = weights.up_bias, weights.down_bias
    columns = gl.arange(0, H, gl.SliceLayout(0, wide))
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, wide))
    at = rows[:, None] * H + columns[None, :]
    few_at = (gl.arange(0, ROWS, gl.SliceLayout(1, few))[:, None] * DP
              + gl.arange(0, DP, gl.SliceLayout(0, few))[None, :])
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    eps_at = wide_scratch + few_at
    parked = wide_scratch + 2 * ROWS * DP + at
    h, k = input_layer(base, z, k, memory, DP, SLOTS, lhs)
    for i in range(DEPTH):
        operand = normalise(h, x, memory.rstd, GROUP * L + i, LN_EPS, H, GUIDED)
        if GUIDED:  # noqa: SIM102 - decided by the compiler, the next by the kernel
            if i < DEPTH - 1:
                gl.store(low + i * ROWS * H + at, operand)
        fence_async_shared()
        barrier()
        h, k = block_forward(h, up_bias + i * 4 * H, k, memory, GROUP, H, BC, SLOTS, thin, lhs)
        h += gl.load(down_bias + i * H + columns)[None, :]
    if E > 0:
        if not GUIDED:
            barrier()  # g's place is x's, which the last block has read
        g.store(h.to(gl.bfloat16))
        if GUIDED:
            gl.store(parked, h)
        fence_async_shared()
        barrier()
        eps_w, k = early_head(weights, k, memory, GROUP, E, GUIDED, H, BC, SLOTS, wide, lhs)
        eps_w = gl.convert_layout(eps_w, gl.SliceLayout(1, few))
        gl.store(eps_at, gl.where(entries[None, :] == D - 1, eps_w[:, None], 0.0))
    else:
        if GUIDED:
            u = halved(h)
            t = tanh(u)
            row = gl.load(weights.output + (D - 1) * H + columns).to(gl.float32)
            g.store(((0.5 + 0.5 * (t + u * (1.0 - t * t))) * row[None, :]).to(gl.bfloat16))
            fence_async_shared()
            barrier()
        out, k = read_out(h, k, memory, DP, SLOTS, lhs, few)
        gl.store(eps_at, out + gl.load(weights.output_bias + entries)[None, :])
    if whole:
        if GUIDED:  # noqa: SIM102 - decided by the compiler, the next by the kernel
            if back:
                for j in range(DEPTH):
                    i = DEPTH - 1 - j
                    if j > 0:
                        x.store(gl.load(low + i * ROWS * H + at))
                        fence_async_shared()
                        barrier()
                    k = block_backward(memory.rstd.index(GROUP * L + i), up_bias + i * 4 * H, k, memory,
                                       GROUP, H, BC, SLOTS, wide, thin, lhs)
                vjp, k = thin_product(g, INPUT, k, memory, DP, SLOTS, few)
                gl.store(eps_at + ROWS * DP, vjp)
        if E > 0:
            if GUIDED:
                h = gl.load(parked)
            for i in range(DEPTH, L):
                normalise(h, x, memory.rstd, GROUP * L + i, LN_EPS, H, GUIDED)
                fence_async_shared()
                barrier()
                h, k = block_forward(h, up_bias + i * 4 * H, k, memory, GROUP, H, BC, SLOTS, thin, lhs)
                h += gl.load(down_bias + i * H + columns)[None, :]
            out, k = read_out(h, k, memory, DP, SLOTS, lhs, few)
            out += gl.load(weights.output_bias + entries)[None, :]
            gl.store(eps_at, gl.where(entries[None, :] == D - 1, gl.load(eps_at), out))
    return k
