"""The method in the plainest PyTorch: slow, obvious, and the standard for all other implementations."""

from swg_fast.reference import philox
from swg_fast.reference.guidance import log_weight_gradient, predicted_weight
from swg_fast.reference.resample import expected_weight, keep, keep_among, keep_mean, read_weight, support
from swg_fast.reference.sampler import Noise, Step, Trajectory, guided_step, sample
from swg_fast.reference.solvers import solver_step, spaced_steps
from swg_fast.reference.student import student

__all__ = ["Noise", "Step", "Trajectory", "expected_weight", "guided_step", "keep", "keep_among", "keep_mean",
           "log_weight_gradient", "philox", "predicted_weight", "read_weight", "sample", "solver_step",
           "spaced_steps", "student", "support"]
