"""The stages of the guided network in Gluon for sm_90, for a warp group's 64 rows in bf16.

A warp group's barriers separate writes and reads of shared memory; some also keep the compiler from fetching
a later stage's inputs while an earlier stage holds the registers. Layouts are those of the accumulators:
``wide`` [64, H], ``thin`` [64, BC], ``few`` [64, DP]; ``lhs`` is a product's left operand from registers.
``memory`` is the result of `kernels.fused.hopper.shared_memory.shared_memory`.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from swg_fast.kernels.fused.hopper.shared_memory import INPUT, OUTPUT, REST, ROWS, arrived, leave
from swg_fast.kernels.fused.hopper.triton_compat import barrier


@gluon.jit
def tanh(u):
    """tanh(u) to 2^-11, in one instruction."""
    return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [u], dtype=gl.float32, is_pure=True,
                                     pack=1)


@gluon.jit
def tanh_again(u):
    """`tanh`, computed anew rather than kept in registers."""
    return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=r,r", [u], dtype=gl.float32, is_pure=False,
                                     pack=1)


@gluon.jit
def halved(h):
    """h / 2, as an instruction that no compiler fuses with another. Triton 3.6 fused 0.5 h with the sum h,
    which kept both the sum and its terms; ptxas then waited for each instruction of a product."""
    return gl.inline_asm_elementwise("mul.f32 $0, $1, 0f3F000000;", "=r,r", [h], dtype=gl.float32,
                                     is_pure=True, pack=1)


@gluon.jit
def fresh(number):
    """``number``, which the compiler must treat as a new value each time. An address computed from it in a
    loop is not hoisted: hoisted matrix descriptors of x and g would take 64 registers."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False,
                                     pack=1)


@gluon.jit
def normalise(h, x, rstd, slot, LN_EPS: gl.constexpr, H: gl.constexpr, KEEP: gl.constexpr):
    """The normalised h in bf16, also stored at ``x`` in shared memory. If KEEP, 1 / std goes to its
    ``slot``."""
    mean = gl.sum(h, axis=1) / H
    centred = h - mean[:, None]
    inverse = 1.0 / gl.sqrt(gl.sum(centred * centred, axis=1) / H + LN_EPS)
    if KEEP:
        rstd.index(slot).store(inverse)
    barrier()
    # Not from ``centred``, which would hold as many registers as h itself.
    operand = (h * inverse[:, None] - (mean * inverse)[:, None]).to(gl.bfloat16)
    x.store(operand)
    return operand


@gluon.jit
def block_forward(h, up_bias, k, memory, GROUP: gl.constexpr, H: gl.constexpr, BC: gl.constexpr,
                  SLOTS: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """h + down SiLU(up x) [64, H] with x in shared memory, and the ring's next slot."""
    group = gl.to_tensor(GROUP)
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    u = warpgroup_mma(memory.x.index(fresh(group)), arrived(k, memory, SLOTS).permute((1, 0)), zero,
                      use_acc=False, is_async=True)
    bias = gl.load(up_bias + columns)
    u = warpgroup_mma_wait(0, [u])
    leave(k, memory, SLOTS)
    for c in range(BC, 4 * H, BC):
        u += bias[None, :]
        y = gl.convert_layout((u + u * tanh(u)).to(gl.bfloat16), lhs)
        total = warpgroup_mma(y, arrived(k + 1, memory, SLOTS), h, is_async=True)
        ahead = warpgroup_mma(memory.x.index(fresh(group)), arrived(k + 2, memory, SLOTS).permute((1, 0)),
                              zero, use_acc=False, is_async=True)
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
def block_backward(rstd, up_bias, k, memory, GROUP: gl.constexpr, H: gl.constexpr, BC: gl.constexpr,
                   SLOTS: gl.constexpr, wide: gl.constexpr, thin: gl.constexpr, lhs: gl.constexpr):
    """Takes the cotangent g in shared memory back through a block, in place; the block's normalised input is
    x, its 1 / std is at ``rstd``. Returns the ring's next slot."""
    x, g, group = memory.x.index(GROUP), memory.g.index(GROUP), gl.to_tensor(GROUP)
    columns = gl.arange(0, BC, gl.SliceLayout(0, thin))
    zero = gl.zeros([ROWS, BC], gl.float32, thin)
    total = gl.zeros([ROWS, H], gl.float32, wide)
    for c in range(0, 4 * H, BC):
        up = arrived(k, memory, SLOTS)
        turn = fresh(group)
        u = warpgroup_mma(memory.x.index(turn), up.permute((1, 0)), zero, use_acc=False, is_async=True)
        inner = warpgroup_mma(memory.g.index(turn), arrived(k + 1, memory, SLOTS).permute((1, 0)), zero,
                              use_acc=False, is_async=True)
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
    barrier()
    total = total - mean[:, None] - x.load(wide).to(gl.float32) * along[:, None]
    barrier()
    total = g.load(wide).to(gl.float32) + rstd.load(gl.SliceLayout(1, wide))[:, None] * total
    barrier()  # all have read g
    g.store(total.to(gl.bfloat16))
    fence_async_shared()
    barrier()
    return k


@gluon.jit
def early_head(weights, k, memory, GROUP: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr,
               H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr, wide: gl.constexpr,
               lhs: gl.constexpr):
    """(eps_w [64] of the stream, the ring's next slot). The stream is in bf16 in g's place; if GUIDED, its
    cotangent replaces it there. Takes half a slot at a time: the cotangent's sum leaves no room for more."""
    HALF: gl.constexpr = BC // 2
    thin: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    g, group = memory.g.index(GROUP), gl.to_tensor(GROUP)
    zero = gl.zeros([ROWS, HALF], gl.float32, thin)
    value = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, thin))
    total = gl.zeros([ROWS, H], gl.float32, wide)
    # A column kept since the kernel began would come from the stack in each trip.
    columns = gl.max_contiguous(gl.multiple_of(fresh(gl.arange(0, HALF, gl.SliceLayout(0, thin))), 2), 2)
    for c in range(0, E, BC):
        slot = arrived(k, memory, SLOTS)
        for half in gl.static_range(2):
            head = slot.slice(half * HALF, HALF)
            u = warpgroup_mma(memory.g.index(fresh(group)), head.permute((1, 0)), zero, use_acc=False,
                              is_async=True)
            bias = gl.load(weights.head_bias + c + half * HALF + columns)
            out = gl.load(weights.head_output + c + half * HALF + columns)
            u = warpgroup_mma_wait(0, [u])
            u += bias[None, :]
            t = tanh(u)
            value += gl.sum((u + u * t) * out[None, :], axis=1)
            if GUIDED:
                slope = (1.0 + t + u * (1.0 - t * t)) * out[None, :]
                operand = gl.convert_layout(slope.to(gl.bfloat16), lhs)
                sums = warpgroup_mma(operand, head, total, is_async=True)
                total = warpgroup_mma_wait(0, [sums])
        leave(k, memory, SLOTS)
        k += 1
    if GUIDED:
        barrier()  # the stream is read
        g.store(total.to(gl.bfloat16))
        fence_async_shared()
        barrier()
    return value + gl.load(weights.head_output_bias), k


@gluon.jit
def thin_product(left, row: gl.constexpr, k, memory, DP: gl.constexpr, SLOTS: gl.constexpr,
                 few: gl.constexpr):
    """left W^T [64, DP] with W in the ring's next slot from ``row`` on, and the slot after it."""
    none = gl.zeros([ROWS, DP], gl.float32, few)
    weights = arrived(k, memory, SLOTS).slice(row, DP)
    out = warpgroup_mma(left, weights.permute((1, 0)), none, use_acc=False, is_async=True)
    out = warpgroup_mma_wait(0, [out])
    leave(k, memory, SLOTS)
    return out, k + 1


@gluon.jit
def read_out(h, k, memory, DP: gl.constexpr, SLOTS: gl.constexpr, lhs: gl.constexpr, few: gl.constexpr):
    """SiLU(h) W^T [64, DP] with the read-out's W."""
    u = halved(h)
    y = gl.convert_layout((u + u * tanh_again(u)).to(gl.bfloat16), lhs)
    return thin_product(y, OUTPUT, k, memory, DP, SLOTS, few)


@gluon.jit
def input_layer(base, z, k, memory, DP: gl.constexpr, SLOTS: gl.constexpr, lhs: gl.constexpr):
    """base + z W [64, H] by three products: z and W are each split into a bf16 number and a bf16 remainder,
    which keeps their product to 2^-16. W is in the ring's next slot."""
    high = z.to(gl.bfloat16)
    low = gl.convert_layout((z - high.to(gl.float32)).to(gl.bfloat16), lhs)
    high = gl.convert_layout(high, lhs)
    weights = arrived(k, memory, SLOTS)
    ins = weights.slice(INPUT, DP)
    h = warpgroup_mma(low, ins, base, is_async=True)
    h = warpgroup_mma(high, weights.slice(REST, DP), h, is_async=True)
    h = warpgroup_mma(high, ins, h, is_async=True)
    h = warpgroup_mma_wait(0, [h])
    leave(k, memory, SLOTS)
    return h, k + 1
