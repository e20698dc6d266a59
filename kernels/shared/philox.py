"""Philox-4x32-10 and Box-Muller in Triton: the same function as `reference.philox`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four uint32 words for a counter of four and a key of two (tensors or scalars, uint32)."""
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, 0xD2511F53)
        high2 = tl.umulhi(c2, 0xCD9E8D57)
        low0 = c0 * 0xD2511F53
        low2 = c2 * 0xCD9E8D57
        c0 = high2 ^ c1 ^ k0
        c1 = low2
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def uniform(word):
    """The upper 23 bits as the centre of a cell of (0, 1), exact in float32."""
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit
def unit_circle(u):
    """(cos 2 pi u, sin 2 pi u) for u in (0, 1), to 3e-8: a quadrant and two short polynomials.

    The library's own cosine carries a slow path for huge arguments, which costs a stack frame.
    """
    quadrant = (u * 4.0 + 0.5).to(tl.int32)
    x = (u - quadrant.to(tl.float32) * 0.25) * 6.283185307179586
    y = x * x
    sine = x * (1.0 + y * (-1.0 / 6 + y * (1.0 / 120 + y * (-1.0 / 5040 + y * (1.0 / 362880)))))
    cosine = 1.0 + y * (-0.5 + y * (1.0 / 24 + y * (-1.0 / 720 + y * (1.0 / 40320))))
    odd = (quadrant & 1) == 1
    c = tl.where(odd, sine, cosine)
    s = tl.where(odd, cosine, sine)
    c = tl.where((quadrant == 1) | (quadrant == 2), -c, c)
    s = tl.where((quadrant == 2) | (quadrant == 3), -s, s)
    return c, s


@triton.jit
def normals(candidate, state, step, k0, k1, DP: tl.constexpr):
    """Standard normal noise [BM, DP] for candidate words [BM] and one state and step."""
    block = tl.arange(0, DP // 4).to(tl.uint32)[None, :]
    zero = (candidate[:, None] ^ candidate[:, None]) | (block ^ block)  # of the shape of both
    w0, w1, w2, w3 = philox(candidate[:, None] + zero, state + zero, step + zero, block + zero, k0, k1)
    r0 = tl.sqrt(-2.0 * tl.log(uniform(w0)))
    r1 = tl.sqrt(-2.0 * tl.log(uniform(w2)))
    c0, s0 = unit_circle(uniform(w1))
    c1, s1 = unit_circle(uniform(w3))
    # Interleaved so that entry 4 j + i of a row is normal i of block j.
    four = tl.join(tl.join(r0 * c0, r1 * c1), tl.join(r0 * s0, r1 * s1))
    return tl.reshape(four, [candidate.shape[0], DP])


@triton.jit
def normal_entries(candidate, state, step, entry, k0, k1):
    """The same, each entry for itself: candidate words [BM, 1] and entries [1, DP] of any layout. Four
    times the words of `normals`, and no exchange between threads."""
    zero = (candidate ^ candidate) | (entry ^ entry)
    w0, w1, w2, w3 = philox(candidate + zero, state + zero, step + zero, (entry >> 2) + zero, k0, k1)
    second = ((entry + zero) & 2) > 0
    radius = tl.sqrt(-2.0 * tl.log(uniform(tl.where(second, w2, w0))))
    cosine, sine = unit_circle(uniform(tl.where(second, w3, w1)))
    return radius * tl.where(((entry + zero) & 1) > 0, sine, cosine)


@triton.jit
def gumbel(candidate, state, step, k0, k1):
    """Standard Gumbel noise [BM]: the first uniform of counter (candidate, state, step, 0)."""
    zero = candidate ^ candidate
    word, _, _, _ = philox(candidate, state + zero, step + zero, zero, k0, k1)
    return -tl.log(-tl.log(uniform(word)))
