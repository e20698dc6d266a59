"""Training's whole steps in C for CPUs: the small networks' products, forwards and backwards, the losses,
Adam and the averages in one call. On CUDA a graph replays PyTorch's step; `masks` makes what dropout
keeps, `adam` takes the optimiser's step. `swg_fast.training` says in plain PyTorch what they compute."""
