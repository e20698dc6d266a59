"""Launch configurations: one table by capability, hidden size and compute type.

The sm_90 entries at hidden size 256 are sorted by their speed on an H200. `docs/kernel-notes.md` lists the
entries that compile without a spill. A device uses the first entry until `kernels.fused.tuning` finds its
best.
"""

from __future__ import annotations

from dataclasses import dataclass

from swg_fast.common.errors import UsageError


@dataclass(frozen=True)
class Config:
    """A tile of BM candidates, BC of the 4H columns at a time, warps and pipeline stages. For kind "gluon"
    (`hopper/`), tile and warps are those of one warp group, and stages are the ring's slots. For kind
    "layers" (`layered/`), stages apply to the narrow products and warps to the others."""

    tile: int
    chunk: int
    warps: int
    stages: int
    kind: str = "portable"


@dataclass(frozen=True)
class Choices:
    """The configurations to choose among, the default first: ``many`` where whole tiles fill every
    multiprocessor, ``few`` (smaller tiles, on more multiprocessors) otherwise. They run where a program may
    have ``shared`` bytes of shared memory."""

    many: tuple[Config, ...]
    few: tuple[Config, ...]
    shared: int


# Shared memory of a program: on sm_86, sm_89 and sm_120; on sm_80 and sm_87; on sm_90 and sm_100.
SHARED_99, SHARED_163, SHARED_227 = 99 * 1024, 163 * 1024, 227 * 1024


# Below a warpgroup's 64 rows, and before sm_90, each warp takes 8 columns of every row; a chunk with fewer
# than 8 columns a warp is computed more than once. Two warpgroups with a tile of 64 share its rows and both
# compute the whole chunk, so such a tile gets four warps.
GLUON = {256: Config(64, 64, 4, 3, kind="gluon"), 128: Config(64, 64, 4, 4, kind="gluon")}  # by hidden size
HOPPER = Choices(many=(GLUON[256], Config(128, 32, 8, 3)),
                 few=(Config(16, 64, 4, 3), Config(16, 128, 4, 2), Config(64, 64, 4, 2),
                      Config(32, 64, 4, 2)), shared=SHARED_227)
HOPPER_128 = Choices(many=(GLUON[128], Config(128, 64, 8, 3)),
                     few=(Config(16, 64, 8, 2), Config(64, 64, 4, 2), Config(32, 64, 8, 2)),
                     shared=SHARED_227)
HOPPER_64 = Choices(many=(Config(128, 64, 8, 3), Config(128, 32, 8, 3)),
                    few=(Config(16, 64, 8, 2), Config(64, 64, 4, 2), Config(32, 64, 8, 2)),
                    shared=SHARED_227)
BLACKWELL = Choices(many=(Config(128, 32, 8, 2), Config(64, 32, 8, 2)),
                    few=(Config(16, 64, 8, 2), Config(32, 64, 8, 2)), shared=SHARED_227)
AMPERE = Choices(many=(Config(64, 64, 8, 1), Config(32, 64, 8, 2)),
                 few=(Config(16, 64, 8, 2), Config(32, 64, 8, 2)), shared=SHARED_163)
TF32 = Choices(many=(Config(32, 32, 8, 1), Config(16, 64, 8, 1)), few=(Config(16, 64, 8, 1),),
               shared=SHARED_163)
FP32 = Choices(many=(Config(16, 16, 8, 1), Config(32, 16, 8, 1)), few=(Config(16, 16, 8, 1),),
               shared=SHARED_99)
FP32_NARROW = Choices(many=(Config(32, 32, 8, 1), Config(16, 16, 8, 1)), few=(Config(16, 16, 8, 1),),
                      shared=SHARED_99)
# For 99 KiB of shared memory, chosen among tiles that compile without a stack for sm_86, sm_89, sm_120.
SMALL = Choices(many=(Config(32, 32, 4, 1), Config(16, 64, 8, 1)), few=(Config(16, 64, 8, 1),),
                shared=SHARED_99)
SMALL_128 = Choices(many=(Config(64, 32, 4, 2), Config(32, 32, 4, 2)), few=(Config(16, 32, 4, 2),),
                    shared=SHARED_99)
SMALL_64 = Choices(many=(Config(32, 32, 4, 2), Config(16, 32, 4, 2)), few=(Config(16, 32, 4, 2),),
                   shared=SHARED_99)
SMALL_TF32 = Choices(many=(Config(16, 32, 4, 1),), few=(Config(16, 32, 4, 1),), shared=SHARED_99)
SMALL_TF32_64 = Choices(many=(Config(16, 32, 4, 2),), few=(Config(16, 32, 4, 2),), shared=SHARED_99)
SMALL_TF32_120 = Choices(many=(Config(32, 32, 4, 1),), few=(Config(32, 32, 4, 1),), shared=SHARED_99)
SMALL_128_120 = Choices(many=(Config(64, 64, 8, 1), Config(32, 32, 4, 2)), few=(Config(16, 32, 4, 2),),
                        shared=SHARED_99)
SMALL_64_120 = Choices(many=(Config(32, 64, 8, 2),), few=(Config(16, 64, 4, 2),), shared=SHARED_99)

# For the layered kernels, the largest first. In types of 4 bytes only tiles of 16 stay in registers.
LAYERS = (Config(64, 128, 8, 4, kind="layers"), Config(32, 128, 4, 4, kind="layers"),
          Config(32, 64, 4, 4, kind="layers"), Config(16, 64, 4, 4, kind="layers"),
          Config(16, 32, 4, 4, kind="layers"))
LAYERS_UP_TO = 2048  # candidates in all; 4,096 already fill the multiprocessors with the other kernels

# (capability, hidden, compute type) -> choices; `nearest` fills in the rest.
CONFIGS: dict[tuple[int, int, str], Choices] = {
    (100, 256, "bf16"): BLACKWELL, (100, 128, "bf16"): BLACKWELL, (100, 64, "bf16"): BLACKWELL,
    (90, 256, "bf16"): HOPPER, (90, 128, "bf16"): HOPPER_128, (90, 64, "bf16"): HOPPER_64,
    (120, 128, "bf16"): SMALL_128_120, (120, 64, "bf16"): SMALL_64_120, (120, 128, "tf32"): SMALL_TF32_120,
    (86, 256, "bf16"): SMALL, (86, 128, "bf16"): SMALL_128, (86, 64, "bf16"): SMALL_64,
    (86, 256, "tf32"): SMALL_TF32, (86, 128, "tf32"): SMALL_TF32, (86, 64, "tf32"): SMALL_TF32_64,
    (80, 256, "bf16"): AMPERE, (80, 128, "bf16"): AMPERE, (80, 64, "bf16"): AMPERE,
    (80, 256, "tf32"): TF32, (80, 128, "tf32"): TF32, (80, 64, "tf32"): TF32,
    (80, 256, "fp32"): FP32, (80, 128, "fp32"): FP32, (80, 64, "fp32"): FP32_NARROW,
}


def nearest(capability: int, hidden: int, dtype: str, shared: int = SHARED_227) -> Choices:
    """The table's entry for a device of this capability whose programs may have ``shared`` bytes of shared
    memory. A missing one is taken from the highest capability below, with the same type and the next larger
    hidden size; an entry for 99 KiB only where others do not fit.

    Raises `UsageError` where nothing fits.
    """
    fitting = [key for key in CONFIGS if key[2] == dtype and CONFIGS[key].shared <= shared]
    fitting = [key for key in fitting if key[0] <= capability] or fitting
    larger = [key for key in fitting if key[1] >= hidden] or fitting
    if not larger:
        raise UsageError(f"a program has {shared:,} bytes of shared memory on this GPU, and the fused "
                         f"kernels need {SHARED_99:,}; use backend='torch'")
    return CONFIGS[max(larger, key=lambda key: (-key[1], CONFIGS[key].shared > SHARED_99, key[0]))]


def suitable(capability: int, hidden: int, dtype: str, candidates: int, processors: int,
             gluon: bool = True, shared: int = SHARED_227) -> tuple[Config, ...]:
    """Configurations for ``candidates`` in all on ``processors`` multiprocessors whose programs may have
    ``shared`` bytes of shared memory, the default first. Without ``gluon`` the Gluon kernels are left out.
    For few candidates, configurations that put at most one tile on a multiprocessor come first: their time
    hardly depends on the number of tiles."""
    choices = nearest(capability, hidden, dtype, shared)
    many = tuple(config for config in choices.many if gluon or config.kind != "gluon")
    if candidates >= many[0].tile * processors:
        return many
    return tuple(sorted(choices.few, key=lambda config: candidates > config.tile * processors))


def layered(hidden: int, dtype: str, candidates: int, processors: int) -> tuple[Config, ...]:
    """The layered kernels' configurations. The first has the largest tiles that still occupy three quarters
    of the ``processors``."""
    fitting = LAYERS if dtype == "bf16" else tuple(c for c in LAYERS if c.tile == 16)

    def idle(config: Config) -> bool:
        return -(-candidates // config.tile) * (4 * hidden // config.chunk) < 0.75 * processors

    enough = [config for config in fitting if not idle(config)]
    return tuple(sorted(fitting, key=lambda config: config != (enough[0] if enough else fitting[-1])))
