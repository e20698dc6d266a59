"""Kernels of half a block a launch, for few candidates: a decision is a CUDA graph of them."""
