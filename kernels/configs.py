"""Launch configurations: one readable table by capability, hidden size and compute type."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """BM candidates a tile, BC of the 4H columns at a time, warps and pipeline stages."""

    tile: int
    chunk: int
    warps: int
    stages: int


# (capability, hidden, compute type) -> configuration. `nearest` fills in what is not listed.
CONFIGS: dict[tuple[int, int, str], Config] = {
    (90, 256, "bf16"): Config(64, 32, 8, 2),
    (90, 128, "bf16"): Config(128, 64, 8, 2),
    (90, 64, "bf16"): Config(128, 64, 4, 2),
    (80, 256, "bf16"): Config(64, 32, 8, 1),
    (80, 128, "bf16"): Config(64, 64, 4, 2),
    (80, 64, "bf16"): Config(64, 64, 4, 2),
    (80, 256, "tf32"): Config(32, 16, 8, 1),
    (80, 128, "tf32"): Config(32, 32, 4, 1),
    (80, 64, "tf32"): Config(64, 32, 4, 1),
    (80, 256, "fp32"): Config(16, 16, 8, 1),
    (80, 128, "fp32"): Config(32, 16, 8, 1),
    (80, 64, "fp32"): Config(32, 32, 4, 1),
}


def nearest(capability: int, hidden: int, dtype: str) -> Config:
    """The table's entry, or that of the highest capability below with the same type and the next
    larger hidden size."""
    fitting = [key for key in CONFIGS if key[2] == dtype and key[0] <= capability]
    fitting = fitting or [key for key in CONFIGS if key[2] == dtype]
    larger = [key for key in fitting if key[1] >= hidden] or fitting
    return CONFIGS[max(larger, key=lambda key: (-key[1], key[0]))]
