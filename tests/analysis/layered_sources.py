"""The layered kernels for `compile_offline`: their arguments, constants and launch options, as
`kernels.fused.layered.plan` sets them for a decision."""

from __future__ import annotations

from typing import Any

from triton.compiler import ASTSource

from swg_fast.kernels.fused.configurations import LAYERS, Config
from swg_fast.kernels.fused.layered import kernels, step
from swg_fast.kernels.fused.layered.plan import (
    HEAD_COLUMNS,
    KEEP_ROWS,
    NARROW_WARPS,
    STEP_ROWS,
    depth,
    narrow,
)

KERNELS = {"up_kernel": kernels.up_kernel, "narrow_kernel": kernels.narrow_kernel,
           "up_back_kernel": kernels.up_back_kernel, "head_kernel": kernels.head_kernel,
           "step_kernel": step.step_kernel, "keep_kernel": step.keep_kernel,
           "hoist_kernel": step.hoist_kernel}
OF_A_CONFIGURATION = ("up_kernel", "narrow_kernel", "up_back_kernel", "head_kernel")
# Arguments by type; all others point to float32.
WEIGHTS = ("up", "down", "head", "output", "output_row", "weights", "wide", "slope", "x", "g", "g_out",
           "inner", "out", "read", "a", "hidden")
OTHERS = {"best_index": "*i32", "steps": "*i32", "state_words": "*i64", "words": "*i64", "owners": "*i64",
          "B": "i32", "N": "i32", "S": "i32", "R": "i32", "T": "i32", "j": "i32", "slots": "i32",
          "w_min": "fp32", "w_max": "fp32", "initial_scale": "fp32", "gumbel_scale": "fp32"}
ROWS = {"step_kernel": STEP_ROWS, "keep_kernel": KEEP_ROWS}


def source(kernel: str, hidden: int, weights: str, config: Config, constants: dict[str, Any]) -> ASTSource:
    """A layered kernel's source for ``weights`` of this pointer type, in the variant that needs the most: it
    keeps values for the backward pass, ends the stream, and is neither the first nor the last step."""
    function = KERNELS[kernel]
    every = constants | {
        "H": hidden, "BM": ROWS.get(kernel, config.tile), "K": 4 * hidden, "BN": narrow(config.chunk),
        "BC": HEAD_COLUMNS if kernel == "head_kernel" else config.chunk,
        "BK": depth(2 if weights == "*bf16" else 4, 4 * hidden), "PARTS": constants["E"] // HEAD_COLUMNS,
        "KEEP": True, "ADD": True, "READ": True, "COTANGENT": True, "START": False, "BEGIN": False,
        "END": False}
    signature, values, attributes = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        if name in every:
            signature[name], values[(index,)] = "constexpr", every[name]
        else:
            signature[name] = OTHERS.get(name, weights if name in WEIGHTS else "*fp32")
            if signature[name][0] == "*":
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(function, signature, values, attributes)


def options(kernel: str, config: Config) -> dict[str, int]:
    """Warps and stages as set by a launch."""
    if kernel == "narrow_kernel":
        return {"num_warps": NARROW_WARPS, "num_stages": config.stages}
    return {"num_warps": NARROW_WARPS if kernel in ROWS else config.warps, "num_stages": 1}


def shipped(**where: Any) -> list[dict[str, Any]]:
    """Arguments of `compile_offline.report` for the largest and the smallest configuration and the others,
    without `hoist_kernel`, a plain sum of a few rows."""
    rows = [where | {"config": config, "kernel": kernel} for config in (LAYERS[0], LAYERS[-1])
            for kernel in OF_A_CONFIGURATION]
    return rows + [where | {"config": LAYERS[0], "kernel": kernel} for kernel in ROWS]
