"""The fused kernels' launcher with the machine in place of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from emulator.compiling import Compiled, compile_kernel
from emulator.kernel import Kernel, Race, Result

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32"}
# What the kernels write; all else they are given must stay as it is.
WRITTEN = {
    "low",
    "wide",
    "z_out",
    "weight_out",
    "eps_out",
    "gradient_out",
    "best_score",
    "best_index",
    "best_weight",
    "best_z",
    "all_z",
    "clean_out",
    "roots",
    "all_expected",
    "all_weight",
    "actions",
    "weights",
    "indices",
}
KERNELS = ("guided_step_kernel", "sample_kernel", "keep_best_kernel")


class Emulation:
    """Kernels compiled for ``capability``, run on the machine under one schedule at a time.

    ``edit`` changes a kernel's PTX before it is run: a fault put in on purpose.
    """

    def __init__(self, capability: int, edit: Callable[[str], str] | None = None, detect: int = 1) -> None:
        self.capability, self.edit, self.detect = capability, edit, detect
        self.seed, self.asynchronous = 0, "issue"
        self.results: list[tuple[str, Result]] = []
        self.compiled: dict[str, Compiled] = {}
        self.traffic: dict[str, int] = {}  # bytes moved of each argument, by name, of all runs
        self._kernels: dict[str, Kernel] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Emulation:
        """Puts the machine where `kernels.fused.launch` has its kernels."""
        from swg_fast.kernels.fused import launch

        for name in KERNELS:
            monkeypatch.setattr(launch, name, _Launcher(getattr(launch, name), name, self))
        return self

    def run(self, launch: Callable[[], Any], seed: int, asynchronous: str) -> Any:
        """What ``launch`` returns under a schedule; its results are then in `results`."""
        self.seed, self.asynchronous = seed, asynchronous
        return launch()

    @property
    def races(self) -> list[Race]:
        return [race for _, result in self.results for race in result.races]

    def kernel(self, name: str, compiled: Compiled) -> Kernel:
        self.compiled[name] = compiled
        ptx = self.edit(compiled.ptx) if self.edit else compiled.ptx
        if ptx not in self._kernels:
            self._kernels[ptx] = Kernel(ptx, compiled.shared, name)
        return self._kernels[ptx]


class _Launcher:
    """Stands where a Triton kernel stands."""

    def __init__(self, function: Any, name: str, emulation: Emulation) -> None:
        self.function = getattr(function, "function", function)
        self.name, self.emulation = name, emulation

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: Any, num_warps: int = 4, num_stages: int = 3, **constants: Any) -> None:
            names = [name for name in self.function.arg_names if name not in constants]
            values = dict(zip(names, arguments, strict=True))
            signature = {
                name: TYPES[v.dtype]
                if isinstance(v, torch.Tensor)
                else "fp32"
                if isinstance(v, float)
                else "i32"
                for name, v in values.items()
            }
            it = self.emulation
            compiled = compile_kernel(
                "swg_fast.kernels.fused.sample",
                self.name,
                signature,
                constants,
                it.capability,
                num_warps,
                num_stages,
            )
            readonly = tuple(
                v for name, v in values.items() if isinstance(v, torch.Tensor) and name not in WRITTEN
            )
            result = it.kernel(self.name, compiled)(
                grid,
                *arguments,
                seed=it.seed,
                asynchronous=it.asynchronous,
                detect=it.detect,
                readonly=readonly,
            )
            it.results.append((self.name, result))
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    it.traffic[name] = it.traffic.get(name, 0) + result.traffic[value.data_ptr()]

        return run
