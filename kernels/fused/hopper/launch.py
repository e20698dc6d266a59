"""Launching the Gluon kernels: what `kernels.fused.launch` does for a configuration of another kind."""

from __future__ import annotations

from typing import Any

import torch

from swg_fast.kernels.fused.configurations import GLUON, Config
from swg_fast.kernels.fused.records import ScratchSizes

GROUPS = 2  # warp groups a program, each with a tile of its own
REGISTERS = 240  # of a thread of a warp group
SHARED_BYTES = 232448  # of a program on sm_90
CHUNK = 64  # rows of a slot of the ring, of which `ends` is one


def unsupported(hidden: int, latent: int, dtype: str, blocks: int = 3) -> str | None:
    """In words, why the Gluon kernels cannot run this network; None where they can."""
    if hidden not in GLUON:
        return f"hidden_dim {hidden} (the Gluon kernels have {', '.join(map(str, GLUON))})"
    if dtype != "bf16":
        return f"compute type {dtype} (the Gluon kernels have bf16)"
    if latent > 16:
        return f"{latent - 1} actions (the Gluon kernels have up to 15)"
    if hidden == 256 and blocks > 4:  # 1 / std of every block is in what the ring leaves of shared memory
        return f"{blocks} blocks (the Gluon kernels have up to 4 at hidden_dim 256)"
    return None


def scratch_sizes(hidden: int, blocks: int, padded: int, tile: int) -> ScratchSizes:
    """Of a warp group (`kernels.fused.hopper.kernels` says what lies where)."""
    return ScratchSizes(LOW=max(blocks - 1, 1) * hidden * tile, WIDE=(hidden + 4 * padded + 2) * tile)


def constants(network: Any, config: Config) -> dict[str, Any]:
    """The kernel's constants by name, besides the sampler's own."""
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
    """What the input layer [DP, H] and the read-out [DP, H] multiply, as one chunk of the ring: rows as
    `kernels.fused.hopper.shared_memory` has them."""
    out = torch.zeros(CHUNK, input_z.shape[1], dtype=output.dtype, device=output.device)
    high = input_z.to(output.dtype)
    for row, part in ((0, high), (16, input_z - high.float()), (32, output)):
        out[row: row + len(part)] = part
    return out


def arguments(network: Any, config: Config) -> tuple[Any, ...]:
    """A network's weights in the order of the kernel's arguments, with tensor maps for what the ring streams
    and, in place of ``input_z``, the `ends`."""
    weights, hidden = network.weights, network.shape.H
    head = weights.head if network.shape.EARLY else weights.up  # never read with a joint head
    streamed = {"input_z": ends(weights.input_z, weights.output), "up": weights.up, "down": weights.down,
                "head": head}
    return weights._replace(**{name: tensor_map(w.reshape(-1, hidden), config.chunk)
                               for name, w in streamed.items()})


def kernel() -> Any:
    """Its `sample_kernel`; importing it takes a Triton that has Gluon."""
    from swg_fast.kernels.fused.hopper.kernels import sample_kernel

    return sample_kernel


def run(programs: int, network: Any, config: Config, given: tuple[Any, ...], **sampler: bool) -> None:
    """Launches `sample_kernel` on a device of capability 9.0."""
    if config not in network.streamed:
        network.streamed[config] = arguments(network, config)
    kernel()[(programs,)](*given, *network.streamed[config], **sampler, **constants(network, config),
                          num_warps=config.warps)
