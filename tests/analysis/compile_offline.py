"""Compiles the fused kernels for a GPU that this machine need not have, and reads the resources they need."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from swg_fast.kernels.fused.configurations import (
    CONFIGS,
    SHARED_99,
    SHARED_163,
    SHARED_227,
    Config,
    nearest,
)
from swg_fast.kernels.fused.hopper import launch as hopper_launch
from swg_fast.kernels.fused.launch import PRECISIONS, REDUCE, scratch_sizes
from swg_fast.kernels.fused.portable.kernels import WHOLE_NUMBERS, sample_kernel
from swg_fast.kernels.fused.portable.selection import keep_best_kernel
from tests.analysis import cycle_model, layered_sources
from tests.analysis.l2_traffic import bytes_per_candidate, gluon_bytes_per_candidate
from tests.analysis.sass_listing import MATRIX_INSTRUCTIONS, instructions, matrix_loops

WEIGHT_TYPES = {"bf16": "*bf16", "tf32": "*fp32", "fp32": "*fp32"}
KERNELS = {"sample_kernel": sample_kernel, "keep_best_kernel": keep_best_kernel}
# Types of the kernels' arguments. WHOLE_NUMBERS are int32; all other arguments point to float32.
WEIGHT_POINTERS = ("low", "up", "down", "output", "head")
INDEX_POINTERS = {"best_index": "*i32", "steps": "*i32", "state_words": "*i64", "indices": "*i64"}
WEIGHT_MAPS = ("ends", "up", "down", "head")  # tensor maps in the Gluon kernels
HEAD_WIDTH = 256
# Shared memory of a program by target, where it is not that of sm_90.
SHARED_BYTES = {80: SHARED_163, 86: SHARED_99, 87: SHARED_163, 89: SHARED_99, 120: SHARED_99, 121: SHARED_99}
FLOATS = ("w_min", "w_max", "initial_scale", "gumbel_scale", "ranking_mean")


@dataclass(frozen=True)
class Variant:
    """A kernel with every constant set, as a launch would set them."""

    hidden: int
    dtype: str
    config: Config
    kernel: str = "sample_kernel"
    head: str = "joint"
    blocks: int = 3
    latent: int = 9
    guided: bool = True
    softmax: bool = False
    multistep: bool = False
    tree: bool = False
    rank: bool = False
    mixed: bool = False
    partly: bool = False


def source(variant: Variant) -> ASTSource:
    """A variant's source, of its configuration's kind."""
    hidden, dtype, config, blocks = variant.hidden, variant.dtype, variant.config, variant.blocks
    early, padded = variant.head == "early", 16 if variant.latent <= 16 else 32
    every: dict[str, Any] = {
        "D": variant.latent, "DP": padded, "BM": config.tile, "H": hidden, "BC": config.chunk, "L": blocks,
        "E": HEAD_WIDTH * early, "EARLY": early, "GUIDED": variant.guided,
        "PARTLY": variant.partly, "CLIP_STATE": not variant.multistep,
        "CLIP_CLEAN": variant.multistep, "MULTISTEP": variant.multistep, "TREE": variant.tree,
        "RANK": variant.rank, "SOFTMAX": variant.softmax,
        "WRITE_ALL": False, "MIXED": variant.mixed, "LN_EPS": 1e-6, "PRECISION": PRECISIONS[dtype],
        "BT": REDUCE, **scratch_sizes(hidden, blocks, padded, config.tile, variant.guided)._asdict(),
        "SLOTS": config.stages,
        "REGISTERS": hopper_launch.REGISTERS}
    if config.kind == "layers":
        return layered_sources.source(variant.kernel, hidden, WEIGHT_TYPES[dtype], config, every)
    function, kind, maps = KERNELS[variant.kernel], ASTSource, {}
    if config.kind == "gluon":
        from triton.experimental.gluon._runtime import GluonASTSource

        function, kind = hopper_launch.kernel(), GluonASTSource
        layout = "NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)"
        maps = dict.fromkeys(WEIGHT_MAPS, f"tensordesc<bf16[{config.chunk}, {hidden}],{layout}>")
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        if name in every:
            signature[name], constants[(index,)] = "constexpr", every[name]
        elif name in maps:
            signature[name] = maps[name]
        elif name in FLOATS:
            signature[name] = "fp32"
        elif name in WHOLE_NUMBERS:
            signature[name] = "i32"
        else:
            weights = WEIGHT_TYPES[dtype] if name in WEIGHT_POINTERS else "*fp32"
            signature[name] = INDEX_POINTERS.get(name, weights)
            attributes[(index,)] = [["tt.divisibility", 16]]
    return kind(function, signature, constants, attributes)


def report(capability: int, hidden: int, dtype: str, config: Config, **shape: Any) -> dict[str, Any]:
    """Compiles one configuration for ``capability`` (80, 90, 100) and reads its resources. If the static
    model applies (sm_90, bf16, guided, tiles of 128 rows in all), also its cost of a step."""
    started = time.perf_counter()
    variant = Variant(hidden, dtype, config, **shape)
    early, kernel = variant.head == "early", variant.kernel
    gluon, layered = config.kind == "gluon", config.kind == "layers"
    options = {"num_warps": config.warps, "num_stages": config.stages}
    compiled = triton.compile(
        source(variant), target=GPUTarget("cuda", capability, 32),
        options=layered_sources.options(kernel, config) if layered else options)
    seconds = time.perf_counter() - started
    cubin = compiled.asm["cubin"]
    usage, sass = _usage(cubin), _run("cuobjdump", "-sass", cubin)
    kinds = [one.kind for one in instructions(sass)]
    loops = [] if layered else matrix_loops(sass, config.tile, config.chunk, hidden, config.warps)
    row = {
        "kernel": kernel + " (Gluon)" * gluon, "target": f"sm_{capability}", "dtype": dtype,
        "config": {"hidden_dim": hidden, "tile": config.tile, "chunk": config.chunk,
                   "warps": config.warps, "stages": config.stages, "head": variant.head,
                   "guided": variant.guided, "mixed": variant.mixed},
        "registers": usage["REG"], "stack_bytes": usage["STACK"],
        "stack_accesses_in_matrix_loops": sum(loop["stack_accesses"] for loop in loops),
        "shared_bytes": compiled.metadata.shared,
        "matrix_instructions": {kind: kinds.count(kind) for kind in MATRIX_INSTRUCTIONS if kind in kinds},
        "matrix_loops": loops, "code_bytes": len(cubin), "compile_seconds": round(seconds, 2)}
    blocks, guided = variant.blocks, variant.guided
    count = gluon_bytes_per_candidate if gluon else bytes_per_candidate
    row["bytes_per_candidate_and_step"] = {} if layered or kernel == "keep_best_kernel" else count(
        hidden, blocks, config.tile, head_width=HEAD_WIDTH * early, guided=guided, mixed=variant.mixed,
        bytes_per_weight=2 if dtype == "bf16" else 4)
    groups = hopper_launch.GROUPS if gluon else 1
    modelled = (capability, dtype, kernel) == (90, "bf16", "sample_kernel")
    if modelled and config.tile * groups == cycle_model.ROWS:
        sizes = cycle_model.Shape(hidden, blocks, variant.latent, HEAD_WIDTH * early, config.chunk,
                                  config.stages * gluon, guided)
        row["predicted_thousand_cycles"] = cycle_model.predict(
            sass, sizes, config.warps * groups, sum(row["bytes_per_candidate_and_step"].values()))
    return row


def report_row(work: dict[str, Any]) -> dict[str, Any]:
    """`report` with its arguments in one mapping, as `shipped` lists them."""
    return report(**work)


def end_with_parent() -> None:
    """Ends this worker process when its parent is gone; it would otherwise wait for ever."""
    parent = parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def shipped(targets: list[int]) -> list[dict[str, Any]]:
    """Arguments of `report` for the table's defaults on each target, for many and for few candidates, for
    their selection, and for the layered kernels."""
    pairs = sorted({(hidden, dtype) for _, hidden, dtype in CONFIGS})
    rows = []
    for target in targets:
        for hidden, dtype in pairs:
            choices = nearest(target, hidden, dtype, SHARED_BYTES.get(target, SHARED_227))
            where = {"capability": target, "hidden": hidden, "dtype": dtype}
            portable = [config for config in choices.many if config.kind != "gluon"][0]
            for config in dict.fromkeys((choices.many[0], portable, choices.few[0])):
                rows += [where | {"config": config, "head": head} for head in ("joint", "early")]
            if (hidden, dtype) == (256, "bf16"):
                rows.append(where | {"config": portable, "kernel": "keep_best_kernel"})
                rows += layered_sources.shipped(**where)
    return rows


def shapes() -> list[dict[str, Any]]:
    """Arguments of `report` for the kernel of many candidates on sm_90, `joint` head: as it is, with tiles of
    several states, unguided, and both."""
    config = nearest(90, 256, "bf16").many[0]
    where = {"capability": 90, "hidden": 256, "dtype": "bf16", "config": config}
    return [where | {"guided": guided, "mixed": mixed}
            for guided in (True, False) for mixed in (False, True)]


def _tool(name: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: this Triton brings no {name}; install triton from PyPI")
    return str(path)


def _run(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_tool(tool), option, file.name], capture_output=True, text=True,
                              check=True).stdout


def _usage(cubin: bytes) -> dict[str, int]:
    text = _run("cuobjdump", "-res-usage", cubin)
    line = next(line for line in text.splitlines() if "REG:" in line)
    return {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
