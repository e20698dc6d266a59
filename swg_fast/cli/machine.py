"""The command ``swg-fast info``: what this machine has, made to be pasted into a bug report."""

from __future__ import annotations

import platform
import textwrap
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from swg_fast.common.errors import UsageError
from swg_fast.policy.backend_names import BACKENDS

if TYPE_CHECKING:
    import torch


@click.command()
@click.option("--no-environments", is_flag=True, help="Leave out the D4RL families (faster).")
def info(no_environments: bool) -> None:
    """Describe this machine; paste the output into a bug report."""
    from swg_fast.common.console import NARROW, print_table
    from swg_fast.envs.tasks import presets

    print_table("swg-fast info", machine_report(not no_environments), NARROW)
    click.echo(textwrap.fill("tasks: " + ", ".join(presets()), NARROW, break_on_hyphens=False))


def machine_report(check_environments: bool = True) -> list[tuple[str, str]]:
    """(name, value) of each row."""
    import torch

    from swg_fast.common.hardware import cores
    from swg_fast.common.provenance import versions
    from swg_fast.policy.backends.registry import backend_class, resolve

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    auto = resolve("auto", device)
    rows = [
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}, "
                   f"{cores()} cores, torch threads: {torch.get_num_threads()}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("device", torch.cuda.get_device_name() if device.type == "cuda" else "cpu (no CUDA device)"),
        ("fused kernels", _fused_kernels(device)),
        ("cpu", f"{torch.backends.cpu.get_cpu_capability()}; loops between products: {_loops()}"),
        ("backends", f"{', '.join(BACKENDS)}; auto is {auto!r} here, and its dtype auto is "
                     f"{backend_class(auto).fastest_dtype(device)}"),
    ]
    if check_environments:
        from swg_fast.envs.d4rl_import import FAMILY_MODULES
        from swg_fast.envs.status import family_status

        rows += [(f"d4rl {family}", family_status(family)) for family in FAMILY_MODULES]
        rows += [("other environments", _other_environments()), ("simulator", _simulator()),
                 ("rendering", _rendering_status())]
    return rows


def _fused_kernels(device: torch.device) -> str:
    """What the device runs of the fused kernels, or why nothing."""
    import torch

    from swg_fast.kernels.shared.devices import is_amd, runs_triton, shared_memory

    if device.type != "cuda":
        return "need an NVIDIA GPU"
    if is_amd():
        return "need an NVIDIA GPU, and this torch is built for AMD's (ROCm)"
    major, minor = torch.cuda.get_device_capability(device)
    if not runs_triton(device):
        return f"need Triton and compute capability 8.0 or later; this GPU has {major}.{minor}"
    from swg_fast.kernels.fused.configurations import suitable

    shared = shared_memory(device)
    try:
        found = suitable(10 * major + minor, 256, "bf16", 2**20, 1, shared=shared)[0]
    except UsageError as error:
        return str(error)
    return (f"compute capability {major}.{minor}, {shared:,} bytes of shared memory a program; many "
            f"candidates in bf16 at hidden 256: {found.kind}, tiles of {found.tile} x {found.chunk}")


def _loops() -> str:
    from swg_fast.kernels.cpu import c_loops
    from swg_fast.kernels.shared import c_compiler

    if c_compiler.compiler() is None:
        return "ATen's (no C compiler found; with one the cpu backend is faster)"
    return f"compiled by {c_compiler.compiler()}" if c_loops.library() else "ATen's (the compiler failed)"


def _other_environments() -> str:
    """The packages of further environments, and how to install those that are missing."""
    found = []
    for package, name, extra in (("gymnasium", "Gymnasium", ""),
                                 ("gymnasium_robotics", "Gymnasium-Robotics", "envs"),
                                 ("ogbench", "OGBench", "envs"), ("minari", "Minari", "minari")):
        if find_spec(package):
            found.append(f"{name} {metadata.version(package.replace('_', '-'))}")
        else:
            found.append(f"no {name} (pip install 'swg-fast[{extra}]')")
    return ", ".join(found)


def _simulator() -> str:
    from swg_fast.envs import simulator

    try:
        simulator.install()
    except UsageError as error:
        return str(error)
    found = simulator.describe()
    return f"{found['name']} {found['version']}, contacts {found['contacts']}"


def _rendering_status() -> str:
    from swg_fast.envs import make_env

    try:
        env = make_env("antmaze-umaze-v2")
        env.reset(0)
        env.render(64, 64)
        return "works"
    except UsageError as error:
        return str(error)
