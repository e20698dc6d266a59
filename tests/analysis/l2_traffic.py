"""Bytes that a candidate and step move between the L2 cache and a multiprocessor, by the code's own loads
and stores; tests hold them to those that the emulator counts."""

from __future__ import annotations


def blocks_back(blocks: int, head_width: int) -> int:
    """How many blocks the cotangent passes; ``head_width`` 0: the joint head."""
    return 2 if head_width else blocks


def bytes_per_candidate(
    hidden: int,
    blocks: int,
    tile: int,
    *,
    head_width: int = 0,
    guided: bool = True,
    bytes_per_weight: int = 2,
) -> dict[str, float]:
    """{"weights", "scratch"} of the portable kernels; ``head_width`` 0: the joint head.

    Weights pass once forward and, for blocks that the cotangent passes, once back; a tile shares them.
    Scratch, a row of H entries at a time, in float32 for the stream h, else in the weights' type: the
    input layer writes h; a block reads h and the last stage's sums, writes h (the first, which adds
    nothing, does not), writes x and reads it whole, writes its sums; the way back reads g and x, writes
    sums, reads sums, x and g, writes g. The last of h is read, with its sums, to be read out. What has
    a few entries a row (z, eps, 1 / std) is left out.
    """
    narrow, wide = bytes_per_weight * hidden, 4 * hidden
    depth, weights = _way_back_and_weights(narrow, hidden, blocks, head_width, guided)
    scratch = wide  # the input layer
    scratch += blocks * (wide + narrow * 2 + narrow) + (blocks - 1) * (wide + narrow)  # blocks forwards
    scratch += wide + narrow + narrow + narrow  # read-out: h and sums, then SiLU(h) and its product's operand
    scratch += depth * 7 * narrow
    if guided:
        scratch += 2 * narrow  # g out of the read-out or the head, and into its product
    if head_width:  # the stream is added up for the head, so that the next stage has nothing to add
        scratch += 2 * wide + 3 * narrow - (wide + narrow if blocks > 2 else narrow)
    return {"weights": weights / tile, "scratch": float(scratch)}


def gluon_bytes_per_candidate(
    hidden: int,
    blocks: int,
    tile: int,
    *,
    head_width: int = 0,
    guided: bool = True,
    bytes_per_weight: int = 2,
) -> dict[str, float]:
    """The same of the Hopper kernels, whose two tiles share the weights, a chunk of
    64 rows for the ends of the network (two or three times a step) among them. Scratch: x of all blocks but
    the last that the cotangent passes, out and in, in sectors of 32 bytes that a warp's access fills by
    half; beside the early head the stream h, out and in."""
    narrow = bytes_per_weight * hidden
    depth, weights = _way_back_and_weights(narrow, hidden, blocks, head_width, guided)
    scratch = 0.0
    if guided:
        scratch += (depth - 1) * 2 * 2 * narrow + (head_width > 0) * 2 * 4 * hidden
    ends = (3 if guided else 2) * 64 * narrow
    return {"weights": (weights + ends) / (2 * tile), "scratch": scratch}


def _way_back_and_weights(narrow: int, hidden: int, blocks: int, head_width: int,
                          guided: bool) -> tuple[int, int]:
    """How many blocks the cotangent passes, and the bytes of weights that a step reads."""
    depth = blocks_back(blocks, head_width) if guided else 0
    return depth, 2 * 4 * hidden * narrow * (blocks + depth) + narrow * head_width
