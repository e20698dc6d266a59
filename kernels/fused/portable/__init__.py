"""The kernels in plain Triton, for every GPU that has bf16."""
