"""The fast paths: packing, the analytic gradient, and the fused kernels. Imports torch and triton
alone; everything else of the project sits above."""
