"""Bytes that a candidate and step move between the L2 cache and a multiprocessor, from the code's loads and
stores; tests compare them with the emulator's counts."""

from __future__ import annotations


def blocks_back(blocks: int, head_width: int) -> int:
    """The number of blocks that the cotangent passes; ``head_width`` 0: the joint head."""
    return 2 if head_width else blocks


def bytes_per_candidate(
    hidden: int,
    blocks: int,
    tile: int,
    *,
    head_width: int = 0,
    guided: bool = True,
    mixed: bool = False,
    bytes_per_weight: int = 2,
) -> dict[str, float]:
    """{"weights", "scratch"} of the portable kernels; ``head_width`` 0: the joint head.

    Weights pass once forward and, for blocks that the cotangent passes, once back; a tile shares them.
    Scratch moves a row of H entries at a time, in float32 for the stream h, else in the weights' type. The
    input layer writes h. A block reads h and the last stage's sums, writes h (except the first block, which
    adds nothing), writes x and reads it whole, writes its sums. The backward pass reads g and x, writes sums,
    reads sums, x and g, writes g. The read-out reads the last h and its sums. Values with a few entries a row
    (z, eps, 1 / std) do not count. In tiles of several states (``mixed``) every row reads its state's vector.
    """
    narrow, wide = bytes_per_weight * hidden, 4 * hidden
    depth, weights = _way_back_and_weights(narrow, hidden, blocks, head_width, guided)
    scratch = wide + wide * mixed  # the input layer
    scratch += blocks * (wide + narrow * 2 + narrow) + (blocks - 1) * (wide + narrow)  # blocks forwards
    scratch += wide + narrow + narrow + narrow  # read-out: h and sums, then SiLU(h) and the product's operand
    scratch += depth * 7 * narrow
    if guided:
        scratch += 2 * narrow  # g from the read-out or the head, and into its product
    if head_width:  # the head adds up the stream, so the next stage adds nothing
        scratch += 2 * wide + 3 * narrow - (wide + narrow if blocks > 2 else narrow)
    return {"weights": weights / tile, "scratch": float(scratch)}


def gluon_bytes_per_candidate(
    hidden: int,
    blocks: int,
    tile: int,
    *,
    head_width: int = 0,
    guided: bool = True,
    mixed: bool = False,
    bytes_per_weight: int = 2,
) -> dict[str, float]:
    """The same for the Hopper kernels, whose two tiles share the weights, including a chunk of 64 rows for
    the network's ends (two or three times a step). Scratch: x of all blocks that the cotangent passes but the
    last, out and in, in sectors of 32 bytes half filled by a warp's access; with the early head also the
    stream h, out and in."""
    narrow = bytes_per_weight * hidden
    depth, weights = _way_back_and_weights(narrow, hidden, blocks, head_width, guided)
    scratch = 4.0 * hidden * mixed
    if guided:
        scratch += (depth - 1) * 2 * 2 * narrow + (head_width > 0) * 2 * 4 * hidden
    ends = (3 if guided else 2) * 64 * narrow
    return {"weights": (weights + ends) / (2 * tile), "scratch": scratch}


def _way_back_and_weights(narrow: int, hidden: int, blocks: int, head_width: int,
                          guided: bool) -> tuple[int, int]:
    """The number of blocks that the cotangent passes, and the bytes of weights that a step reads."""
    depth = blocks_back(blocks, head_width) if guided else 0
    return depth, 2 * 4 * hidden * narrow * (blocks + depth) + narrow * head_width
