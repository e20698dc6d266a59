"""What can be measured on this machine: backends, peers, and the network's products alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import check
from swg_fast.kernels.cpu.network_onednn import TILE, PackedLinear, has_native_bf16
from swg_fast.method.sampler_names import STUDENT
from swg_fast.method.samplers import sampler_table
from swg_fast.policy.backends.registry import BACKENDS, backend_class
from swg_fast.policy.policy import Policy

Run = Callable[[np.ndarray, int, int], Any]  # (states [B, S], N, seed): one decision
PEERS = {"compile": "torch", "jax": "jax", "swg-jax": "flax"}  # name -> the module that it needs


@dataclass(frozen=True)
class Contender:
    """A backend or peer in one compute type."""

    name: str
    dtype: str
    checkout: str | None = None


def find(policy: Policy, names: list[str], dtypes: list[str] | None, swg_jax: str | None
         ) -> list[Contender]:
    """The contenders called ``names`` ("torch", or "torch:bf16" for one type) on the policy's device.

    The name ``all`` stands for all that this machine has. ``dtypes`` None is every type, without bf16 where
    the processor would emulate it. Raises `UsageError` for a named contender that does not run here; a peer,
    which walks a diffusion, does not for a student alone.
    """
    emulated = policy.device.type == "cpu" and not has_native_bf16()
    if emulated and dtypes and "bf16" in dtypes:
        raise UsageError("--dtypes bf16: this processor has no native bf16 (AVX512-BF16 or AMX), and an "
                         "emulation's times say nothing; use --dtypes fp32")
    everything = names == ["all"]
    if everything:
        names = [*BACKENDS, *(name for name in PEERS if name != "swg-jax" or swg_jax)]
    found = []
    for name, _, only in (name.partition(":") for name in names):
        try:
            kinds = _types(policy, name, swg_jax)
        except UsageError:
            if not everything or (name == "swg-jax" and swg_jax):
                raise
            continue  # not on this machine
        chosen = dtypes or [kind for kind in kinds if not (emulated and kind == "bf16")]
        if only and only not in set(kinds) & set(chosen):
            raise UsageError(f"--backends {name}:{only} cannot be measured here; {name} can in "
                             f"{' and '.join(kind for kind in kinds if kind in chosen) or 'nothing'}")
        found += [Contender(name, kind, swg_jax if name == "swg-jax" else None)
                  for kind in kinds if kind in chosen and only in ("", kind)]
    if not found:
        raise UsageError("no backend is left to measure; widen --backends or --dtypes")
    return found


def _types(policy: Policy, name: str, swg_jax: str | None) -> list[str]:
    """The compute types in which ``name`` runs here; `UsageError` where it does not run at all."""
    if name in PEERS:
        if not policy.model.has_diffusion:
            raise UsageError(f"peer {name!r} walks a diffusion, and this policy is a student alone; give "
                             f"--backends some of {', '.join(BACKENDS)}")
        check(PEERS[name], f"peer {name!r}")
        if name == "swg-jax":
            if swg_jax is None:
                raise UsageError("peer 'swg-jax' needs the authors' checkout; give --swg-jax PATH")
            if not (Path(swg_jax) / "src" / "models" / "diffusion_model.py").is_file():
                raise UsageError(f"{swg_jax}: no src/models/diffusion_model.py; give a checkout of SWG-JAX")
        return ["fp32"] if name == "swg-jax" else ["fp32", "bf16"]
    kinds, reason = [], None
    for kind in backend_class(name).dtypes:
        try:
            if kind != "fp64":
                policy.backend(name, kind)
                kinds.append(kind)
        except UsageError as error:
            reason = error
    if not kinds:
        raise reason or UsageError(f"backend {name!r} has no compute type to measure")
    return kinds


def runner(contender: Contender, policy: Policy, rho: float) -> Run:
    """The function that makes one decision with guidance scale ``rho``."""
    if contender.name in BACKENDS:
        walk = policy.model.walk
        own: dict[str, Any] = {} if walk is None else {
            "sampler": STUDENT, "weight_clip": walk.weight_clip, "weight_readout": walk.weight_readout,
            "clip_denoised": walk.clip_denoised}
        return lambda states, n, seed: policy.sample(
            states, n_candidates=n, guidance_scale=rho, temperature=1.0, seed=seed, backend=contender.name,
            dtype=contender.dtype, **own)

    network, schedule = policy.model.network, policy.model.schedule
    table = sampler_table("ddpm", schedule, guidance_scale=rho, temperature=1.0)
    module = {"compile": "compiled", "jax": "jax_sampler", "swg-jax": "swg_jax"}[contender.name]
    make = importlib.import_module(f"swg_fast.evaluation.bench.peers.{module}").make_sampler
    if contender.name == "jax":
        return make(network, table, contender.dtype)
    if contender.name == "compile":
        return make(network, table, contender.dtype, policy.device)
    return make(network, table, schedule.betas.numpy(), rho, contender.checkout)


ROWS = 65536  # of the products' input on a GPU
ROUNDS = 8  # products with a tile in one call on a CPU


def products_flops(device: torch.device, hidden: int) -> int:
    """FLOP of one call of `products`."""
    rows = ROUNDS * torch.get_num_threads() * TILE if device.type == "cpu" else ROWS
    return rows * 2 * 2 * hidden * 4 * hidden


def products(dtype: str, device: torch.device, hidden: int) -> Callable[[], Any]:
    """A call of the network's products alone, [M, H] x [H, 4H] and back: the ceiling. On a CPU with oneDNN's
    packed layers and one tile a core, as in the cpu backend."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    up = torch.randn(4 * hidden, hidden, device=device).to(kind)
    down = torch.randn(hidden, 4 * hidden, device=device).to(kind)
    if device.type != "cpu":
        x = torch.randn(ROWS, hidden, device=device).to(kind)
        return lambda: (x @ up.T) @ down.T
    from swg_fast.policy.backends.cpu import worker_pool

    layers, threads = (PackedLinear(up, None), PackedLinear(down, None)), torch.get_num_threads()
    tiles = [torch.randn(TILE, hidden).to(kind) for _ in range(threads)]

    def walk(tile: torch.Tensor) -> None:
        for _ in range(ROUNDS):
            layers[1](layers[0](tile))

    return lambda: list(worker_pool(threads).map(walk, tiles))
