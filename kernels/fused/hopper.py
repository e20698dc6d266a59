"""The guided network in Gluon for sm_90, for tiles of 64 rows in bf16.

A program has two tiles, a warp group each, and a producer warp that streams weights to both, through a
ring of SLOTS shared-memory slots by TMA: [BC, H] of `up` and of `down` in turn. A warp group keeps the
stream h [64, H] in its accumulators through the forward pass, the normalised input x and the cotangent g
in shared memory, and issues the next chunk's first product before it waits for this one's second. Its
partner runs out of step, so that one's SiLU meets the other's products. What else must wait (earlier
blocks' x, h beside the early head, eps, z) waits in global scratch, where every thread reads back what it
wrote itself: no barrier but the ring's orders anything between warp groups.

full[s] completes when slot s has arrived, empty[s] when both warp groups are done with it. Barriers of a
warp group stand where shared memory changes hands; some also keep the compiler from fetching what a later
stage needs while the stage before holds the registers. Layouts are those of the accumulators: ``wide``
[64, H], ``thin`` [64, BC], ``few`` [64, DP]; ``lhs`` a product's left operand from registers.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

ROWS = gl.constexpr(64)  # of a warp group


@gluon.jit
def tanh(u):
    """tanh(u) to 2^-11, in one instruction."""
    return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [u], dtype=gl.float32, is_pure=True,
                                     pack=1)


@gluon.jit
def tanh_again(u):
    """`tanh`, computed where it stands rather than kept from before."""
    return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [u], dtype=gl.float32, is_pure=False,
                                     pack=1)


@gluon.jit
def send(weights, row, k, memory, SLOTS: gl.constexpr):
    """Rows row .. row + BC - 1 into the ring, as its k-th slot, when both warp groups have left it."""
    ring, full, empty = memory[0], memory[1], memory[2]
    slot = k % SLOTS
    mbarrier.wait(empty.index(slot), ((k // SLOTS) & 1) ^ 1)
    mbarrier.expect(full.index(slot), weights.nbytes_per_cta)
    tma.async_load(weights, [row, 0], full.index(slot), ring.index(slot))


@gluon.jit
def arrived(k, memory, SLOTS: gl.constexpr):
    """The ring's k-th slot, waited for."""
    mbarrier.wait(memory[1].index(k % SLOTS), (k // SLOTS) & 1)
    return memory[0].index(k % SLOTS)


@gluon.jit
def leave(k, memory, SLOTS: gl.constexpr):
    mbarrier.arrive(memory[2].index(k % SLOTS))


@gluon.jit
def send_block(up, down, block, k, memory, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr):
    for c in range(0, 4 * H, BC):
        send(up, block * 4 * H + c, k, memory, SLOTS)
        send(down, block * 4 * H + c, k + 1, memory, SLOTS)
        k += 2
    return k


@gluon.jit
def send_network(up, down, head, k, memory, whole, L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr,
                 H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr):
    """All chunks in the order in which `network` consumes them; the ring's next slot."""
    DEPTH: gl.constexpr = 2 if E > 0 else L
    for i in range(DEPTH):
        k = send_block(up, down, i, k, memory, H, BC, SLOTS)
    for c in range(0, E, BC):
        send(head, c, k, memory, SLOTS)
        k += 1
    if whole:
        if GUIDED:
            for j in range(DEPTH):
                k = send_block(up, down, DEPTH - 1 - j, k, memory, H, BC, SLOTS)
        for i in range(DEPTH, L):
            k = send_block(up, down, i, k, memory, H, BC, SLOTS)
    return k


@gluon.jit
def normalise(h, x, rstd, LN_EPS: gl.constexpr, H: gl.constexpr):
    """The normalised h in bf16, also at ``x`` in shared memory, and 1 / std at ``rstd``."""
    mean = gl.sum(h, axis=1) / H
    centred = h - mean[:, None]
    inverse = 1.0 / gl.sqrt(gl.sum(centred * centred, axis=1) / H + LN_EPS)
    rstd.store(inverse)
    gl.barrier()
    # Not from ``centred``: kept until here it would take as many registers as h itself.
    operand = (h * inverse[:, None] - (mean * inverse)[:, None]).to(gl.bfloat16)
    x.store(operand)
    return operand


@gluon.jit
def block_forward(h, x, up_bias, k, memory, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr,
                  wide: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """h + down SiLU(up x) [64, H], and the ring's next slot."""
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    u = warpgroup_mma(x, arrived(k, memory, SLOTS).permute((1, 0)), zero, use_acc=False, is_async=True)
    bias = gl.load(up_bias + columns)
    u = warpgroup_mma_wait(0, [u])
    leave(k, memory, SLOTS)
    for c in range(BC, 4 * H, BC):
        u += bias[None, :]
        y = gl.convert_layout((u + u * tanh(u)).to(gl.bfloat16), lhs)
        total = warpgroup_mma(y, arrived(k + 1, memory, SLOTS), h, is_async=True)
        ahead = warpgroup_mma(x, arrived(k + 2, memory, SLOTS).permute((1, 0)), zero, use_acc=False,
                              is_async=True)
        bias = gl.load(up_bias + c + columns)
        h = warpgroup_mma_wait(1, [total])
        leave(k + 1, memory, SLOTS)
        u = warpgroup_mma_wait(0, [ahead])
        leave(k + 2, memory, SLOTS)
        k += 2
    u += bias[None, :]
    y = gl.convert_layout((u + u * tanh(u)).to(gl.bfloat16), lhs)
    total = warpgroup_mma(y, arrived(k + 1, memory, SLOTS), h, is_async=True)
    h = warpgroup_mma_wait(0, [total])
    leave(k + 1, memory, SLOTS)
    return h, k + 2


@gluon.jit
def block_backward(g, x, rstd, up_bias, k, memory, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr,
                   wide: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """The cotangent in shared memory at ``g`` taken back through the block whose normalised input is at
    ``x`` and 1 / std at ``rstd``, in place; the ring's next slot."""
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    total = gl.zeros([ROWS, H], gl.float32, wide)
    for c in range(0, 4 * H, BC):
        up = arrived(k, memory, SLOTS)
        u = warpgroup_mma(x, up.permute((1, 0)), zero, use_acc=False, is_async=True)
        inner = warpgroup_mma(g, arrived(k + 1, memory, SLOTS).permute((1, 0)), zero, use_acc=False,
                              is_async=True)
        bias = gl.load(up_bias + c + columns)
        u = warpgroup_mma_wait(1, [u])
        u += bias[None, :]
        t = tanh(u)
        bend = t + u * (1.0 - t * t)
        inner = warpgroup_mma_wait(0, [inner])
        leave(k + 1, memory, SLOTS)
        operand = gl.convert_layout((inner + inner * bend).to(gl.bfloat16), lhs)
        sums = warpgroup_mma(operand, up, total, is_async=True)
        total = warpgroup_mma_wait(0, [sums])
        leave(k, memory, SLOTS)
        k += 2
    mean = gl.sum(total, axis=1) / H
    along = gl.sum(total * x.load(wide).to(gl.float32), axis=1) / H
    gl.barrier()
    total = total - mean[:, None] - x.load(wide).to(gl.float32) * along[:, None]
    gl.barrier()
    total = g.load(wide).to(gl.float32) + rstd.load(gl.SliceLayout(1, wide))[:, None] * total
    gl.barrier()  # all have read g
    g.store(total.to(gl.bfloat16))
    fence_async_shared()
    gl.barrier()
    return k


@gluon.jit
def early_head(x, g, weights, k, memory, E: gl.constexpr, GUIDED: gl.constexpr, H: gl.constexpr,
               BC: gl.constexpr, SLOTS: gl.constexpr, wide: gl.constexpr, thin: gl.constexpr,
               lhs: gl.constexpr):
    """eps_w [64] of the stream in bf16 at ``x``, which may be ``g``: there its cotangent is left where
    GUIDED. Also the ring's next slot."""
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    value = gl.zeros([ROWS, BC], gl.float32, thin)
    total = gl.zeros([ROWS, H], gl.float32, wide)
    for c in range(0, E, BC):
        head = arrived(k, memory, SLOTS)
        u = warpgroup_mma(x, head.permute((1, 0)), zero, use_acc=False, is_async=True)
        bias = gl.load(weights[8] + c + columns)
        out = gl.load(weights[9] + c + columns)
        u = warpgroup_mma_wait(0, [u])
        u += bias[None, :]
        t = tanh(u)
        value += (u + u * t) * out[None, :]
        if GUIDED:
            slope = (1.0 + t + u * (1.0 - t * t)) * out[None, :]
            sums = warpgroup_mma(gl.convert_layout(slope.to(gl.bfloat16), lhs), head, total, is_async=True)
            total = warpgroup_mma_wait(0, [sums])
        leave(k, memory, SLOTS)
        k += 1
    if GUIDED:
        gl.barrier()  # the stream at x is read
        g.store(total.to(gl.bfloat16))
        fence_async_shared()
        gl.barrier()
    return gl.sum(value, axis=1) + gl.load(weights[10]), k


@gluon.jit
def read_out(h, outs, DP: gl.constexpr, lhs: gl.constexpr, few: gl.constexpr):
    """SiLU(h) W^T [64, DP] with W in shared memory."""
    u = 0.5 * h
    y = gl.convert_layout((u + u * tanh_again(u)).to(gl.bfloat16), lhs)
    none = gl.zeros([ROWS, DP], gl.float32, few)
    out = warpgroup_mma(y, outs.permute((1, 0)), none, use_acc=False, is_async=True)
    return warpgroup_mma_wait(0, [out])


@gluon.jit
def input_layer(base, z, ins, rest, H: gl.constexpr, wide: gl.constexpr, lhs: gl.constexpr):
    """base + z W [64, H], by three products: z and W both as bf16 and what that leaves, which keeps
    their product to 2^-16."""
    high = z.to(gl.bfloat16)
    low = gl.convert_layout((z - high.to(gl.float32)).to(gl.bfloat16), lhs)
    high = gl.convert_layout(high, lhs)
    h = warpgroup_mma(low, ins, base, is_async=True)
    h = warpgroup_mma(high, rest, h, is_async=True)
    h = warpgroup_mma(high, ins, h, is_async=True)
    return warpgroup_mma_wait(0, [h])


@gluon.jit
def network(z, base, low, wide_scratch, weights, k, memory, whole, GROUP: gl.constexpr, D: gl.constexpr,
            DP: gl.constexpr, L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr, H: gl.constexpr,
            BC: gl.constexpr, SLOTS: gl.constexpr, LN_EPS: gl.constexpr, wide: gl.constexpr,
            thin: gl.constexpr, few: gl.constexpr, lhs: gl.constexpr):
    """Leaves eps and d eps_w / dz, both [64, DP], in scratch at ``wide_scratch`` and 64 DP further; of z in
    registers and ``base`` [64, H], the rest of the input layer. Where ``whole`` is 0, eps_w alone. Returns
    the ring's next slot.

    With the early head the way back starts as soon as the second block is done; h waits in scratch and
    goes on from there. ``low`` has room for L - 1 blocks' x [64, H], what follows eps and d eps_w / dz for
    h [64, H].
    """
    DEPTH: gl.constexpr = 2 if E > 0 else L
    x, g = memory[3].index(GROUP), memory[4].index(GROUP)
    outs, ins, rest = memory[6], memory[7], memory[8]
    up_bias, down_bias = weights[2], weights[4]
    columns = gl.arange(0, H, gl.SliceLayout(0, wide))
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, wide))
    at = rows[:, None] * H + columns[None, :]
    few_at = (gl.arange(0, ROWS, gl.SliceLayout(1, few))[:, None] * DP
              + gl.arange(0, DP, gl.SliceLayout(0, few))[None, :])
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    eps_at = wide_scratch + few_at
    parked = wide_scratch + 2 * ROWS * DP + at
    h = input_layer(base, z, ins, rest, H, wide, lhs)
    for i in range(DEPTH):
        operand = normalise(h, x, memory[5].index(GROUP * L + i), LN_EPS, H)
        if GUIDED:  # noqa: SIM102 - decided by the compiler, the next by the kernel
            if i < DEPTH - 1:
                gl.store(low + i * ROWS * H + at, operand)
        fence_async_shared()
        gl.barrier()
        h, k = block_forward(h, x, up_bias + i * 4 * H, k, memory, H, BC, SLOTS, wide, thin, lhs)
        h += gl.load(down_bias + i * H + columns)[None, :]
    if E > 0:
        g.store(h.to(gl.bfloat16))
        if GUIDED:
            gl.store(parked, h)
        fence_async_shared()
        gl.barrier()
        eps_w, k = early_head(g, g, weights, k, memory, E, GUIDED, H, BC, SLOTS, wide, thin, lhs)
        eps_w = gl.convert_layout(eps_w, gl.SliceLayout(1, few))
        gl.store(eps_at, gl.where(entries[None, :] == D - 1, eps_w[:, None], 0.0))
    else:
        if GUIDED:
            u = 0.5 * h
            t = tanh(u)
            row = gl.load(weights[5] + (D - 1) * H + columns).to(gl.float32)
            g.store(((0.5 + 0.5 * (t + u * (1.0 - t * t))) * row[None, :]).to(gl.bfloat16))
            fence_async_shared()
            gl.barrier()
        gl.store(eps_at, read_out(h, outs, DP, lhs, few) + gl.load(weights[6] + entries)[None, :])
    if whole:
        if GUIDED:
            for j in range(DEPTH):
                i = DEPTH - 1 - j
                if j > 0:
                    x.store(gl.load(low + i * ROWS * H + at))
                    fence_async_shared()
                    gl.barrier()
                k = block_backward(g, x, memory[5].index(GROUP * L + i), up_bias + i * 4 * H, k, memory, H,
                                   BC, SLOTS, wide, thin, lhs)
            none = gl.zeros([ROWS, DP], gl.float32, few)
            back = warpgroup_mma(g, ins.permute((1, 0)), none, use_acc=False, is_async=True)
            back = warpgroup_mma_wait(0, [back])
            gl.store(eps_at + ROWS * DP, back)
        if E > 0:
            if GUIDED:
                h = gl.load(parked)
            for i in range(DEPTH, L):
                normalise(h, x, memory[5].index(GROUP * L + i), LN_EPS, H)
                fence_async_shared()
                gl.barrier()
                h, k = block_forward(h, x, up_bias + i * 4 * H, k, memory, H, BC, SLOTS, wide, thin, lhs)
                h += gl.load(down_bias + i * H + columns)[None, :]
            out = read_out(h, outs, DP, lhs, few) + gl.load(weights[6] + entries)[None, :]
            gl.store(eps_at, gl.where(entries[None, :] == D - 1, gl.load(eps_at), out))
    return k
