"""Compiles Triton functions for GPUs that may be absent, in a process without Triton's interpreter."""

from __future__ import annotations

import atexit
import functools
import importlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class Compiled:
    """PTX, its cubin by ptxas, and the bytes of shared memory that it needs."""

    ptx: str
    cubin: bytes
    shared: int


def _switch_off() -> None:
    os.environ["TRITON_INTERPRET"] = "0"


@functools.cache
def _process() -> ProcessPoolExecutor:
    with patch.dict(os.environ, PYTHONSAFEPATH="1"):  # no module of the current folder
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool.submit(_switch_off).result()
    atexit.register(pool.shutdown)
    return pool


def _source_of(function: Any) -> Any:
    """Triton's source object for a function; Gluon has its own kind."""
    if type(function).__name__ == "GluonJITFunction":
        from triton.experimental.gluon._runtime import GluonASTSource

        return GluonASTSource
    from triton.compiler import ASTSource

    return ASTSource


def _compile(
    module: str,
    name: str,
    signature: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    warps: int,
    stages: int,
) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget

    function = getattr(importlib.import_module(module), name)
    positions = {name: (i,) for i, name in enumerate(function.arg_names)}
    types = {name: "constexpr" if name in constants else signature[name] for name in positions}
    aligned = {positions[name]: [["tt.divisibility", 16]] for name, kind in types.items() if kind[0] == "*"}
    values = {positions[name]: value for name, value in constants.items()}
    source = _source_of(function)(function, types, values, aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages}
    )
    return Compiled(compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata.shared)


def without_interpreter(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls ``function``, importable by name, in a process in which Triton compiles."""
    return _process().submit(function, *arguments).result()


@functools.cache
def _remembered(request: tuple[Any, ...]) -> Compiled:
    module, name, signature, constants, *rest = request
    return without_interpreter(_compile, module, name, dict(signature), dict(constants), *rest)


def compile_kernel(
    module: str,
    name: str,
    signature: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    warps: int = 4,
    stages: int = 2,
) -> Compiled:
    """Compiles ``name`` of ``module`` with every pointer aligned to 16 bytes, as the launcher finds them.

    ``signature`` gives the types, in Triton's words, of the arguments outside ``constants``.
    """
    return _remembered(
        (module, name, tuple(signature.items()), tuple(constants.items()), capability, warps, stages)
    )
