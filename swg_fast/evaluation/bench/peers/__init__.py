"""Samplers and training steps to compare with: torch.compile, jitted JAX, and the authors' own sampler."""
