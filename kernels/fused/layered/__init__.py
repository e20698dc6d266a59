"""Kernels for few candidates: each launch computes half a block, and a CUDA graph of launches one decision.
"""
