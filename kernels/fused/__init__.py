"""The fused Triton kernels: stages, samplers, launches, configurations and tuning."""
