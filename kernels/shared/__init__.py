"""What every backend shares: packing, the sampler's table, noise, and the analytic gradient."""
