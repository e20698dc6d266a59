"""The versions of Triton that are supported, and every difference between them that the kernels meet.

`halved` in `hopper.stages` is written as it is for 3.6's sake; it serves all versions alike.
"""

from __future__ import annotations

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

# `make test-triton` compiles for each; pyproject.toml has the ends.
VERSIONS = ("3.6.0", "3.7.1", "3.8.0", "3.9.0")

barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # Triton 3.6 and before: thread_barrier
# Before `async_load` the copy had the longer name; later versions keep it only to raise an error.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
