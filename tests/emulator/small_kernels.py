"""Small Triton kernels that test the emulator."""

import triton
import triton.language as tl


@triton.jit
def add(x, y, z, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(z + i, tl.load(x + i, mask=i < n, other=0.0) + tl.load(y + i, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def softmax(x, y, R: tl.constexpr, C: tl.constexpr):
    at = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    v = tl.load(x + at)
    e = tl.exp(v - tl.max(v, axis=1)[:, None])
    tl.store(y + at, e / tl.sum(e, axis=1)[:, None])


@triton.jit
def column_sums(x, y, R: tl.constexpr, C: tl.constexpr):
    at = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(y + tl.arange(0, C), tl.sum(tl.load(x + at), axis=0))


@triton.jit
def product(
    a,
    b,
    c,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    BK: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    r, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, BK)
    total = tl.zeros([M, N], tl.float32)
    for s in range(0, K, BK):
        x = tl.load(a + r[:, None] * K + s + k[None, :])
        if TRANSPOSED:
            y = tl.trans(tl.load(b + n[:, None] * K + s + k[None, :]))
        else:
            y = tl.load(b + (s + k)[:, None] * N + n[None, :])
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(c + r[:, None] * N + n[None, :], total)
