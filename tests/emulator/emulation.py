"""The fused kernels' launcher with the machine instead of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from emulator.compiling import Compiled, compile_kernel
from emulator.kernel import Kernel, Race, Result
from emulator.results import TensorMap

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32"}
# The arguments that the kernels write; all others must stay unchanged.
WRITTEN = {
    "low",
    "wide",
    "best_score",
    "best_index",
    "best_weight",
    "best_z",
    "all_z",
    "roots",
    "all_expected",
    "all_weight",
    "actions",
    "weights",
    "indices",
    "scores",
}
# The arguments that the layered kernels write.
WRITTEN_BY_LAYERS = {
    "h",
    "slope",
    "x",
    "rstd",
    "out",
    "read",
    "g_out",
    "hidden",
    "parts",
    "z",
    "clean",
    "weight",
    "vectors",
}
KERNELS = ("sample_kernel", "keep_best_kernel")
LAYERED = ("up_kernel", "narrow_kernel", "up_back_kernel", "head_kernel", "step_kernel", "keep_kernel",
           "hoist_kernel")


class Emulation:
    """Kernels compiled for ``capability``, run on the machine under one schedule at a time.

    ``edit`` changes a kernel's PTX before it runs, to insert a fault.
    """

    def __init__(self, capability: int, edit: Callable[[str], str] | None = None, detect: int = 1) -> None:
        self.capability, self.edit, self.detect = capability, edit, detect
        self.seed, self.asynchronous = 0, "issue"
        self.results: list[tuple[str, Result]] = []
        self.compiled: dict[str, Compiled] = {}
        self.traffic: dict[str, int] = {}  # bytes moved of each argument in all runs, by name
        self._kernels: dict[str, Kernel] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Emulation:
        """Replaces all kernels of `kernels.fused.launch`, layered and Gluon ones too, by the machine."""
        from swg_fast.kernels.fused import launch
        from swg_fast.kernels.fused.hopper import launch as hopper_launch
        from swg_fast.kernels.fused.layered import plan as layered_plan

        for name in KERNELS:
            monkeypatch.setattr(launch, name, _Launcher(getattr(launch, name), name, self))
        for name in (*LAYERED, "keep_best_kernel"):
            monkeypatch.setattr(layered_plan, name, _Launcher(getattr(layered_plan, name), name, self))
        kernel = hopper_launch.kernel()
        monkeypatch.setattr(hopper_launch, "kernel", lambda: _Launcher(kernel, "sample_kernel", self))
        monkeypatch.setattr(hopper_launch, "tensor_map", tensor_map)
        return self

    def run(self, launch: Callable[[], Any], seed: int, asynchronous: str) -> Any:
        """The result of ``launch`` under a schedule; the kernels' results are then in `results`."""
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


def tensor_map(weights: torch.Tensor, chunk: int) -> TensorMap:
    """Replaces `hopper_launch.tensor_map`: copies of a box fill 128 bytes of each row at a time."""
    return TensorMap(weights, (chunk, 64), 128)


class _Launcher:
    """Replaces a Triton kernel."""

    def __init__(self, function: Any, name: str, emulation: Emulation) -> None:
        self.function = getattr(function, "function", function)
        self.name, self.emulation = name, emulation
        self.written = WRITTEN | (WRITTEN_BY_LAYERS if name in LAYERED else set())

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: Any, num_warps: int = 4, num_stages: int = 3, **constants: Any) -> None:
            names = [name for name in self.function.arg_names if name not in constants]
            values = dict(zip(names, arguments, strict=True))
            signature = {name: _type(value) for name, value in values.items()}
            it = self.emulation
            compiled = compile_kernel(
                self.function.fn.__module__,
                self.name,
                signature,
                constants,
                it.capability,
                num_warps,
                num_stages,
            )
            readonly = tuple(
                v for name, v in values.items() if isinstance(v, torch.Tensor) and name not in self.written
            )
            result = it.kernel(self.name, compiled)(
                grid,
                *(part for value in arguments for part in _passed(value)),
                seed=it.seed,
                asynchronous=it.asynchronous,
                detect=it.detect,
                readonly=readonly,
            )
            it.results.append((self.name, result))
            for name, value in values.items():
                memory = value.tensor if isinstance(value, TensorMap) else value
                if isinstance(memory, torch.Tensor):
                    it.traffic[name] = it.traffic.get(name, 0) + result.traffic[memory.data_ptr()]

        return run


def _type(value: Any) -> str:
    """An argument's type in Triton's words."""
    if isinstance(value, TensorMap):
        layout = "NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)"
        return f"tensordesc<bf16[{value.box[0]}, {value.tensor.shape[1]}],{layout}>"
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def _passed(value: Any) -> tuple[Any, ...]:
    """An argument as the compiled kernel takes it: a tensor map is followed by its shape and strides."""
    if isinstance(value, TensorMap):
        return (value, *value.tensor.shape, *value.tensor.stride())
    return (value,)
