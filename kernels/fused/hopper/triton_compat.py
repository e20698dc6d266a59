"""Names of Gluon that changed between Triton 3.6 and 3.9."""

from __future__ import annotations

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # Triton 3.6 and before: thread_barrier
# Before `async_load` the copy had the longer name; later versions keep it only to raise an error.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
