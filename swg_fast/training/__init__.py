"""Training: critic (Algorithm 3), weights, then the joint diffusion (Algorithm 1)."""
