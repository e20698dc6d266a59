"""A row of the sampler's table, applied to a tile (`kernels.shared.sampler_table.SamplerTable`)."""

from __future__ import annotations

import triton
import triton.language as tl

from swg_fast.kernels.shared import sampler_table

SIGMA = tl.constexpr(sampler_table.COLUMNS.index("sigma"))
READOUT = tl.constexpr(sampler_table.COLUMNS.index("readout"))
GUIDANCE = tl.constexpr(sampler_table.COLUMNS.index("guidance"))
CLEAN_SCALE = tl.constexpr(sampler_table.COLUMNS.index("clean_scale"))
STATE = tl.constexpr(sampler_table.COLUMNS.index("state"))
EPSILON = tl.constexpr(sampler_table.COLUMNS.index("epsilon"))
CLEAN = tl.constexpr(sampler_table.COLUMNS.index("clean"))
NOISE = tl.constexpr(sampler_table.COLUMNS.index("noise"))
PREVIOUS = tl.constexpr(sampler_table.COLUMNS.index("previous"))
COLUMNS = tl.constexpr(len(sampler_table.COLUMNS))


@triton.jit
def clip_latent(z, entries, w_min, w_max, D: tl.constexpr):
    """Actions to [-1, 1], the weight to [w_min, w_max], padding to 0."""
    low = tl.where(entries == D - 1, w_min, -1.0)
    high = tl.where(entries == D - 1, w_max, 1.0)
    return tl.where(entries < D, tl.minimum(tl.maximum(z, low), high), 0.0)


@triton.jit
def update(z, eps, vjp, xi, last_clean, entries, row, w_min, w_max, D: tl.constexpr, GUIDED: tl.constexpr,
           CLIP_STATE: tl.constexpr, CLIP_CLEAN: tl.constexpr, MULTISTEP: tl.constexpr):
    """One row of the sampler's table: (next z, its unclipped weight [BM], gradient, x0). ``entries`` [1, DP]
    numbers the columns; ``vjp`` is zeros unless GUIDED; ``last_clean``, the previous x0, is read only if
    MULTISTEP. Gluon calls it too, so it creates no tensor of its own."""
    last = entries == D - 1
    sigma = tl.load(row + SIGMA)
    gradient = vjp
    guided = eps
    if GUIDED:
        clean_w = tl.sum(tl.where(last, z - sigma * eps, 0.0), axis=1)
        weight = tl.load(row + READOUT) * clean_w
        inside = (weight >= w_min) & (weight <= w_max)
        gradient = (tl.where(last, 1.0, 0.0) - sigma * vjp) / tl.where(inside, clean_w, 1.0)[:, None]
        gradient = tl.where(inside[:, None] & (gradient == gradient), gradient, 0.0)
        guided = eps - tl.load(row + GUIDANCE) * gradient
    clean = tl.load(row + CLEAN_SCALE) * (z - sigma * guided)
    taken = clean
    if CLIP_CLEAN:
        inner = clip_latent(clean, entries, w_min, w_max, D)
        taken = tl.load(row + CLEAN) * (clean - inner)  # what it takes off the new z
        clean = inner
    z = tl.load(row + STATE) * z + tl.load(row + EPSILON) * guided + tl.load(row + CLEAN) * clean
    z += tl.load(row + NOISE) * xi
    if MULTISTEP:
        z += tl.load(row + PREVIOUS) * last_clean
    z = tl.where(entries < D, z, 0.0)
    unclipped = z
    if CLIP_CLEAN:
        unclipped += taken
    raw = tl.sum(tl.where(last, unclipped, 0.0), axis=1)
    if CLIP_STATE:
        z = clip_latent(z, entries, w_min, w_max, D)
    return z, raw, gradient, clean
