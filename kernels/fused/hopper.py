"""The guided network in Gluon for sm_90: eps and d eps_w / dz of tiles of 128 rows, joint head, bf16.

A producer warp streams weights through a ring of SLOTS shared-memory slots by TMA, [BC, H] of `up` and of
`down` in turn; two warp groups of 64 rows each consume it. A warp group keeps the stream h [64, H] in its
accumulators through the forward pass, the normalised input x and the cotangent g in shared memory, and
issues the next chunk's first product before it waits for this one's second. Its partner runs out of step,
so that one's SiLU meets the other's products. Earlier blocks' x wait in global scratch, where every thread
reads back what it wrote itself.

full[s] completes when slot s has arrived, empty[s] when both warp groups are done with it. Compiled and
emulated (tests/kernels/fused/test_hopper.py); on no GPU yet.
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
def send(weights, row, k, ring, full, empty, SLOTS: gl.constexpr):
    """Rows row .. row + BC - 1 into the ring, as its k-th slot, when both warp groups have left it."""
    slot = k % SLOTS
    mbarrier.wait(empty.index(slot), ((k // SLOTS) & 1) ^ 1)
    mbarrier.expect(full.index(slot), weights.nbytes_per_cta)
    tma.async_load(weights, [row, 0], full.index(slot), ring.index(slot))


@gluon.jit
def producer(up, down, ring, full, empty, L: gl.constexpr, BACK: gl.constexpr, H: gl.constexpr,
             BC: gl.constexpr, SLOTS: gl.constexpr):
    """All chunks in the order in which they are consumed: L blocks forwards, BACK of them back."""
    k = 0
    for i in range(L + BACK):
        block = i
        if i >= L:
            block = 2 * L - 1 - i
        for c in range(0, 4 * H, BC):
            send(up, block * 4 * H + c, k, ring, full, empty, SLOTS)
            send(down, block * 4 * H + c, k + 1, ring, full, empty, SLOTS)
            k += 2


@gluon.jit
def arrived(k, ring, full, SLOTS: gl.constexpr):
    """The ring's k-th slot, waited for."""
    mbarrier.wait(full.index(k % SLOTS), (k // SLOTS) & 1)
    return ring.index(k % SLOTS)


@gluon.jit
def leave(k, empty, SLOTS: gl.constexpr):
    mbarrier.arrive(empty.index(k % SLOTS))


@gluon.jit
def block_forward(h, x, up_bias, k, ring, full, empty, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr,
                  wide: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """h + down SiLU(up x) [64, H], and the ring's next slot."""
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    u = warpgroup_mma(x, arrived(k, ring, full, SLOTS).permute((1, 0)), zero, use_acc=False, is_async=True)
    bias = gl.load(up_bias + columns)
    u = warpgroup_mma_wait(0, [u])
    leave(k, empty, SLOTS)
    for c in range(BC, 4 * H, BC):
        u += bias[None, :]
        y = gl.convert_layout((u + u * tanh(u)).to(gl.bfloat16), lhs)
        total = warpgroup_mma(y, arrived(k + 1, ring, full, SLOTS), h, is_async=True)
        ahead = warpgroup_mma(x, arrived(k + 2, ring, full, SLOTS).permute((1, 0)), zero, use_acc=False,
                              is_async=True)
        bias = gl.load(up_bias + c + columns)
        h = warpgroup_mma_wait(1, [total])
        leave(k + 1, empty, SLOTS)
        u = warpgroup_mma_wait(0, [ahead])
        leave(k + 2, empty, SLOTS)
        k += 2
    u += bias[None, :]
    y = gl.convert_layout((u + u * tanh(u)).to(gl.bfloat16), lhs)
    total = warpgroup_mma(y, arrived(k + 1, ring, full, SLOTS), h, is_async=True)
    h = warpgroup_mma_wait(0, [total])
    leave(k + 1, empty, SLOTS)
    return h, k + 2


@gluon.jit
def block_backward(g, x, rstd, up_bias, k, ring, full, empty, H: gl.constexpr, BC: gl.constexpr,
                   SLOTS: gl.constexpr, wide: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """The cotangent in shared memory at ``g`` taken back through the block whose normalised input is at
    ``x``, in place; the ring's next slot."""
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    total = gl.zeros([ROWS, H], gl.float32, wide)
    for c in range(0, 4 * H, BC):
        up = arrived(k, ring, full, SLOTS)
        u = warpgroup_mma(x, up.permute((1, 0)), zero, use_acc=False, is_async=True)
        inner = warpgroup_mma(g, arrived(k + 1, ring, full, SLOTS).permute((1, 0)), zero, use_acc=False,
                              is_async=True)
        bias = gl.load(up_bias + c + columns)
        u = warpgroup_mma_wait(1, [u])
        u += bias[None, :]
        t = tanh(u)
        bend = t + u * (1.0 - t * t)
        inner = warpgroup_mma_wait(0, [inner])
        leave(k + 1, empty, SLOTS)
        operand = gl.convert_layout((inner + inner * bend).to(gl.bfloat16), lhs)
        sums = warpgroup_mma(operand, up, total, is_async=True)
        total = warpgroup_mma_wait(0, [sums])
        leave(k, empty, SLOTS)
        k += 2
    mean = gl.sum(total, axis=1) / H
    along = gl.sum(total * x.load(wide).to(gl.float32), axis=1) / H
    total = rstd[:, None] * (total - mean[:, None] - x.load(wide).to(gl.float32) * along[:, None])
    total += g.load(wide).to(gl.float32)
    gl.barrier()  # all have read g
    g.store(total.to(gl.bfloat16))
    fence_async_shared()
    gl.barrier()
    return k


@gluon.jit
def consumer(z, state_vectors, owners, time_row, input_z, up_bias, down_bias, output, output_bias, eps, vjp,
             kept, M, xs, gs, rs, outs, ins, ring, full, empty, GROUP: gl.constexpr, D: gl.constexpr,
             DP: gl.constexpr, L: gl.constexpr, GUIDED: gl.constexpr, H: gl.constexpr, BC: gl.constexpr,
             SLOTS: gl.constexpr, LN_EPS: gl.constexpr):
    """Warp group GROUP: 64 rows forwards and, where GUIDED, back."""
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, H, 16])
    thin: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BC, 16])
    few: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    lhs: gl.constexpr = gl.DotOperandLayout(0, wide, 2)
    x = xs.index(GROUP)
    g = gs.index(GROUP)
    first = gl.program_id(0) * 2 * ROWS + GROUP * ROWS
    rows = first + gl.arange(0, ROWS, gl.SliceLayout(1, wide))
    columns = gl.arange(0, H, gl.SliceLayout(0, wide))
    at = rows[:, None] * H + columns[None, :]
    owner = gl.load(owners + rows)
    h = gl.load(state_vectors + owner[:, None] * H + columns[None, :])
    h += gl.load(time_row + columns)[None, :]
    for d in range(D):
        entry = gl.load(z + rows * D + d, mask=rows < M, other=0.0)
        h += entry[:, None] * gl.load(input_z + d * H + columns)[None, :]
    k = 0
    for i in range(L):
        mean = gl.sum(h, axis=1) / H
        centred = h - mean[:, None]
        rstd = 1.0 / gl.sqrt(gl.sum(centred * centred, axis=1) / H + LN_EPS)
        rs.index(GROUP * L + i).store(rstd)
        operand = (centred * rstd[:, None]).to(gl.bfloat16)
        x.store(operand)
        if GUIDED:  # noqa: SIM102 -- one is known while compiling, the other is not
            if i < L - 1:
                gl.store(kept + i * gl.num_programs(0) * 2 * ROWS * H + at, operand)
        fence_async_shared()
        gl.barrier()
        h, k = block_forward(h, x, up_bias + i * 4 * H, k, ring, full, empty, H, BC, SLOTS, wide, thin, lhs)
        h += gl.load(down_bias + i * H + columns)[None, :]
    u = 0.5 * h
    t = tanh(u)
    y = gl.convert_layout((u + u * t).to(gl.bfloat16), lhs)
    few_rows = first + gl.arange(0, ROWS, gl.SliceLayout(1, few))
    few_columns = gl.arange(0, DP, gl.SliceLayout(0, few))
    few_at = few_rows[:, None] * DP + few_columns[None, :]
    none = gl.zeros([ROWS, DP], gl.float32, few)
    out = warpgroup_mma(y, outs.permute((1, 0)), none, use_acc=False, is_async=True)
    out = warpgroup_mma_wait(0, [out])
    gl.store(eps + few_at, out + gl.load(output_bias + few_columns)[None, :])
    if GUIDED:
        row = gl.load(output + (D - 1) * H + columns).to(gl.float32)
        g.store(((0.5 + 0.5 * (t + u * (1.0 - t * t))) * row[None, :]).to(gl.bfloat16))
        fence_async_shared()
        gl.barrier()
        for j in range(L):
            i = L - 1 - j
            if j > 0:
                x.store(gl.load(kept + i * gl.num_programs(0) * 2 * ROWS * H + at))
                fence_async_shared()
                gl.barrier()
            rstd = rs.index(GROUP * L + i).load(gl.SliceLayout(1, wide))
            k = block_backward(g, x, rstd, up_bias + i * 4 * H, k, ring, full, empty, H, BC, SLOTS, wide,
                               thin, lhs)
        back = warpgroup_mma(g, ins.permute((1, 0)), none, use_acc=False, is_async=True)
        back = warpgroup_mma_wait(0, [back])
        gl.store(vjp + few_at, back)


@gluon.jit
def shared_copy(source, DP: gl.constexpr, H: gl.constexpr):
    """[DP, H] of global memory in shared memory, in bf16, for the warp groups' products."""
    spread: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [4, 1], [1, 0])
    rows = gl.arange(0, DP, gl.SliceLayout(1, spread))
    columns = gl.arange(0, H, gl.SliceLayout(0, spread))
    value = gl.load(source + rows[:, None] * H + columns[None, :]).to(gl.bfloat16)
    layout: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    return gl.allocate_shared_memory(gl.bfloat16, [DP, H], layout, value)


@gluon.jit(do_not_specialize=["M"])
def network_kernel(z, state_vectors, owners, time_row, input_z, up, up_bias, down, down_bias, output,
                   output_bias, eps, vjp, kept, M, D: gl.constexpr, DP: gl.constexpr, L: gl.constexpr,
                   GUIDED: gl.constexpr, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr,
                   LN_EPS: gl.constexpr, REGISTERS: gl.constexpr):
    """eps and d eps_w / dz [M, DP], both padded to whole tiles, of z [M, D]; ``kept`` has room for L - 1
    blocks' x [M, H]. ``up`` and ``down`` are tensor maps over [L 4H, H]; other names as in
    `kernels.fused.sample`."""
    BACK: gl.constexpr = L if GUIDED else 0
    activations: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ring = gl.allocate_shared_memory(gl.bfloat16, [SLOTS, BC, H], up.layout)
    xs = gl.allocate_shared_memory(gl.bfloat16, [2, ROWS, H], activations)
    gs = gl.allocate_shared_memory(gl.bfloat16, [2, ROWS, H], activations)
    rs = gl.allocate_shared_memory(gl.float32, [2 * L, ROWS], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    outs = shared_copy(output, DP, H)
    ins = shared_copy(input_z, DP, H)
    full = mbarrier.allocate_mbarrier(batch=SLOTS)
    empty = mbarrier.allocate_mbarrier(batch=SLOTS)
    for i in gl.static_range(SLOTS):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    fence_async_shared()
    gl.barrier()
    gl.warp_specialize([
        (consumer, (z, state_vectors, owners, time_row, input_z, up_bias, down_bias, output, output_bias,
                    eps, vjp, kept, M, xs, gs, rs, outs, ins, ring, full, empty, gl.constexpr(0), D, DP, L,
                    GUIDED, H, BC, SLOTS, LN_EPS)),
        (consumer, (z, state_vectors, owners, time_row, input_z, up_bias, down_bias, output, output_bias,
                    eps, vjp, kept, M, xs, gs, rs, outs, ins, ring, full, empty, gl.constexpr(1), D, DP, L,
                    GUIDED, H, BC, SLOTS, LN_EPS)),
        (producer, (up, down, ring, full, empty, L, BACK, H, BC, SLOTS)),
    ], [4, 1], [REGISTERS, 24])
