"""Gluon's names that changed between Triton 3.6 and 3.9, under one each."""

from __future__ import annotations

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # 3.6 and before: thread_barrier
# Before `async_load` existed; later versions keep this name to say that it is gone.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
