"""Whole training steps in C for CPUs: forward and backward pass, losses, Adam and averages in one call. On
CUDA a graph replays PyTorch's step, with dropout's masks by `dropout_masks` and Adam by `adam_triton`.
`swg_fast.training` has the same steps in plain PyTorch."""
