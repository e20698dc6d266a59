"""Launches the Gluon kernels; `kernels.fused.launch` does the same for the other kinds."""

from __future__ import annotations

from typing import Any

import torch

from swg_fast.kernels.fused.configurations import GLUON, Config
from swg_fast.kernels.fused.records import ScratchSizes
from swg_fast.kernels.shared.devices import settle

GROUPS = 2  # warp groups a program, each with its own tile
REGISTERS = 240  # of a thread of a warp group
SHARED_BYTES = 232448  # of a program on sm_90
CHUNK = 64  # rows of a slot of the ring, of which `ends` is one


def unsupported(hidden: int, latent: int, dtype: str, blocks: int = 3) -> str | None:
    """Why the Gluon kernels cannot run this network, in words; None if they can."""
    if hidden not in GLUON:
        return f"hidden_dim {hidden} (the Gluon kernels have {', '.join(map(str, GLUON))})"
    if dtype != "bf16":
        return f"compute type {dtype} (the Gluon kernels have bf16)"
    if latent > 16:
        return f"{latent - 1} actions (the Gluon kernels have up to 15)"
    if hidden == 256 and blocks > 4:  # 1 / std of every block must fit beside the ring in shared memory
        return f"{blocks} blocks (the Gluon kernels have up to 4 at hidden_dim 256)"
    return None


def scratch_sizes(hidden: int, blocks: int, padded: int, tile: int, guided: bool = True) -> ScratchSizes:
    """A warp group's scratch (see `kernels.fused.hopper.kernels`). Unguided, no activation is in it."""
    if not guided:
        return ScratchSizes(LOW=1, WIDE=(4 * padded + 2) * tile)
    return ScratchSizes(LOW=max(blocks - 1, 1) * hidden * tile, WIDE=(hidden + 4 * padded + 2) * tile)


def constants(network: Any, config: Config) -> dict[str, Any]:
    """The kernel's constants by name, except the sampler's."""
    shape = network.shape
    return {"D": shape.D, "DP": shape.DP, "H": shape.H, "L": shape.L, "E": shape.E, "LN_EPS": shape.LN_EPS,
            "BC": config.chunk, "SLOTS": config.stages, "REGISTERS": REGISTERS}


def tensor_map(weights: torch.Tensor, chunk: int) -> Any:
    """``weights`` [.., H] for TMA, ``chunk`` rows at a time."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor(weights, list(weights.shape), list(weights.stride()), [chunk, weights.shape[1]],
                            gl.NVMMASharedLayout(128, 16, 2))


def ends(input_z: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The weights of the input layer [DP, H] and the read-out [DP, H] as one chunk of the ring, with the rows
    of `kernels.fused.hopper.shared_memory`."""
    out = torch.zeros(CHUNK, input_z.shape[1], dtype=output.dtype, device=output.device)
    high = input_z.to(output.dtype)
    for row, part in ((0, high), (16, input_z - high.float()), (32, output)):
        out[row: row + len(part)] = part
    return out


def arguments(network: Any, config: Config) -> tuple[Any, ...]:
    """A network's weights in the order of the kernel's arguments: tensor maps for streamed weights, and the
    `ends` instead of ``input_z``."""
    weights, hidden = network.weights, network.shape.H
    head = weights.head if network.shape.EARLY else weights.up  # not read with a joint head
    streamed = {"input_z": ends(weights.input_z, weights.output), "up": weights.up, "down": weights.down,
                "head": head}
    return weights._replace(**{name: tensor_map(w.reshape(-1, hidden), config.chunk)
                               for name, w in streamed.items()})


def kernel() -> Any:
    """The Gluon `sample_kernel`; the import needs a Triton that has Gluon."""
    from swg_fast.kernels.fused.hopper.kernels import sample_kernel

    return sample_kernel


def run(programs: int, network: Any, config: Config, given: tuple[Any, ...], **sampler: bool) -> None:
    """Launches `sample_kernel` on a device of capability 9.0."""
    if config not in network.streamed:
        streamed = arguments(network, config)
        settle(network.packed.device)  # any stream may read it from the next line on
        network.streamed[config] = streamed
    kernel()[(programs,)](*given, *network.streamed[config], **sampler, **constants(network, config),
                          num_warps=config.warps)
