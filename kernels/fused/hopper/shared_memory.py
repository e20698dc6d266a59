"""Shared memory of the Gluon kernels for sm_90: its layout, and the ring that streams the weights.

A producer warp fills the ring's SLOTS slots by TMA, alternately with [BC, H] of `up` and of `down`, for both
warp groups of a program. full[s] completes when slot s has arrived, empty[s] when both warp groups have left
it.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from swg_fast.kernels.fused.hopper.records import Memory
from swg_fast.kernels.fused.hopper.triton_compat import async_load, barrier

ROWS = gl.constexpr(64)  # of a warp group
# `ends` [64, H]: the input layer's weights rounded to bf16, the rounding's remainder in bf16, the read-out's.
INPUT, REST, OUTPUT = (gl.constexpr(row) for row in (0, 16, 32))


@gluon.jit
def shared_memory(up, L: gl.constexpr, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr,
                  GUIDED: gl.constexpr):
    """A program's `Memory`, with initialised barriers. Unguided, nothing is kept: the early head's stream,
    which otherwise takes g's place, takes x's, and no 1 / std is written."""
    activations: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ring = gl.allocate_shared_memory(gl.bfloat16, [SLOTS, BC, H], up.layout)
    x = gl.allocate_shared_memory(gl.bfloat16, [2, ROWS, H], activations)
    g = x
    rstd = x
    if GUIDED:
        g = gl.allocate_shared_memory(gl.bfloat16, [2, ROWS, H], activations)
        rstd = gl.allocate_shared_memory(gl.float32, [2 * L, ROWS], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(SLOTS):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    fence_async_shared()
    barrier()
    return Memory(ring, full, empty, x, g, rstd)


@gluon.jit
def send(weights, row, k, memory, SLOTS: gl.constexpr):
    """Sends rows row .. row + BC - 1 to the ring as its k-th slot, once both warp groups have left that slot.
    """
    slot = k % SLOTS
    mbarrier.wait(memory.empty.index(slot), ((k // SLOTS) & 1) ^ 1)
    mbarrier.expect(memory.full.index(slot), weights.block_type.nbytes)
    async_load(weights, [row, 0], memory.full.index(slot), memory.ring.index(slot))


@gluon.jit
def arrived(k, memory, SLOTS: gl.constexpr):
    """Waits for the ring's k-th slot and returns it."""
    mbarrier.wait(memory.full.index(k % SLOTS), (k // SLOTS) & 1)
    return memory.ring.index(k % SLOTS)


@gluon.jit
def leave(k, memory, SLOTS: gl.constexpr):
    mbarrier.arrive(memory.empty.index(k % SLOTS))


@gluon.jit
def send_block(up, down, block, k, memory, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr):
    for c in range(0, 4 * H, BC):
        send(up, block * 4 * H + c, k, memory, SLOTS)
        send(down, block * 4 * H + c, k + 1, memory, SLOTS)
        k += 2
    return k


@gluon.jit
def send_network(up, down, head, ends, k, memory, whole, back, L: gl.constexpr, E: gl.constexpr,
                 GUIDED: gl.constexpr, H: gl.constexpr, BC: gl.constexpr, SLOTS: gl.constexpr):
    """Sends all chunks in the order in which `network` consumes them, with ``ends`` for the input layer, the
    read-out and the input layer's backward pass. Returns the ring's next slot."""
    DEPTH: gl.constexpr = 2 if E > 0 else L
    send(ends, 0, k, memory, SLOTS)
    k += 1
    for i in range(DEPTH):
        k = send_block(up, down, i, k, memory, H, BC, SLOTS)
    if E == 0:
        send(ends, 0, k, memory, SLOTS)
        k += 1
    for c in range(0, E, BC):
        send(head, c, k, memory, SLOTS)
        k += 1
    if whole:
        if GUIDED:  # noqa: SIM102 - decided by the compiler, the next by the kernel
            if back:
                for j in range(DEPTH):
                    k = send_block(up, down, DEPTH - 1 - j, k, memory, H, BC, SLOTS)
                send(ends, 0, k, memory, SLOTS)
                k += 1
        for i in range(DEPTH, L):
            k = send_block(up, down, i, k, memory, H, BC, SLOTS)
        if E > 0:
            send(ends, 0, k, memory, SLOTS)
            k += 1
    return k
