"""From a backend's name to the backend."""

from __future__ import annotations

from importlib import import_module

# Not `torch` itself: importing the backend of that name binds it in this package.
from torch import device as Device

from swg_fast.common.checks import choice
from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.devices import runs_triton
from swg_fast.method.networks import ScoreNetwork
from swg_fast.policy.backend_names import BACKENDS
from swg_fast.policy.backends.streaming import Backend
from swg_fast.policy.model import Model


def backend_class(name: str) -> type[Backend]:
    """The class behind a backend's name; `UsageError` for an unknown one."""
    module, attribute = BACKENDS[choice("backend", name, BACKENDS)].split(":")
    return getattr(import_module(module), attribute)


def resolve(name: str, device: Device, network: ScoreNetwork | None = None, dtype: str = "auto") -> str:
    """The backend that ``auto`` stands for on ``device``; any other name stands for itself.

    On a CPU it is ``cpu``. On a GPU it is ``triton``; ``torch`` for a network or a GPU that the fused
    kernels do not support, and in fp32, where libraries are many times as fast as the kernels, which then
    have no tensor cores.
    """
    if choice("backend", name, ("auto", *BACKENDS)) != "auto":
        return name
    if device.type == "cpu":
        return "cpu"
    if dtype == "fp32" or not runs_triton(device):
        return "torch"
    from swg_fast.policy.backends.triton import unsupported

    return "torch" if network is not None and unsupported(network) else "triton"


def make_backend(name: str, model: Model, dtype: str, device: Device) -> Backend:
    """A backend ready to sample. ``dtype`` ``auto`` is the fastest that this machine has, which
    depends on the machine alone.

    Raises `UsageError` for an unknown backend or a compute type that it does not have.
    """
    cls = backend_class(resolve(name, device, model.network, dtype))
    dtype = cls.fastest_dtype(device) if dtype == "auto" else dtype
    if dtype not in cls.dtypes:
        choices = ", ".join(cls.dtypes)
        raise UsageError(f"backend {cls.name!r} has no compute type {dtype!r}; use one of {choices}")
    return cls(model, dtype, device)
