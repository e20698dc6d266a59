"""The backends by name. To add one: a file in `backends/` with a `Backend` subclass, and its line here."""

BACKENDS = {
    "reference": "swg_fast.policy.backends.reference:ReferenceBackend",
    "torch": "swg_fast.policy.backends.torch:TorchBackend",
    "cpu": "swg_fast.policy.backends.cpu:CpuBackend",
    "triton": "swg_fast.policy.backends.triton:TritonBackend",
}
