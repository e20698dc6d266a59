"""Other ways to sample, to measure against: torch.compile, and a jitted JAX sampler of our own."""
