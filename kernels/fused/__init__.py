"""The fused Triton kernel: blocks, sampler, launch, configurations, tuner, and its report."""
