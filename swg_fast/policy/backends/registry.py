"""The registry of backends. To add one: a file with a `Backend` subclass, and its line here."""

from __future__ import annotations

from importlib import import_module

# Not `torch` itself: importing the backend of that name binds it in this package.
from torch import device as Device

from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.devices import runs_triton
from swg_fast.method.networks import ScoreNetwork
from swg_fast.policy.backends.job import Model
from swg_fast.policy.backends.streaming import Backend

BACKENDS = {
    "reference": "swg_fast.policy.backends.reference:ReferenceBackend",
    "torch": "swg_fast.policy.backends.torch:TorchBackend",
    "cpu": "swg_fast.policy.backends.cpu:CpuBackend",
    "triton": "swg_fast.policy.backends.triton:TritonBackend",
}


def backend_class(name: str) -> type[Backend]:
    """The class behind a backend's name; `UsageError` for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; use one of auto, {', '.join(BACKENDS)}")
    module, attribute = BACKENDS[name].split(":")
    return getattr(import_module(module), attribute)


def resolve(name: str, device: Device, network: ScoreNetwork | None = None, dtype: str = "auto") -> str:
    """The backend that ``auto`` stands for on ``device``: ``cpu`` on a CPU; elsewhere ``triton``, or
    ``torch`` for a network or a GPU that the fused kernels do not support, and in fp32, whose products the
    kernels make without tensor cores and libraries make many times faster. Any other name stands for
    itself."""
    if name != "auto":
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
        raise UsageError(f"backend {cls.name!r} has no compute type {dtype!r}; "
                         f"use one of {', '.join(cls.dtypes)}")
    return cls(model, dtype, device)
