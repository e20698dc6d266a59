"""The method in the plainest PyTorch: slow, obvious, and what everything else is compared with."""

from reference import philox
from reference.guidance import log_weight_gradient, predicted_weight
from reference.resample import keep
from reference.sampler import Noise, Step, Trajectory, guided_step, sample

__all__ = ["Noise", "Step", "Trajectory", "guided_step", "keep", "log_weight_gradient", "philox",
           "predicted_weight", "sample"]
