"""swg-fast: fast training and sampling of Self-Weighted Guidance (arXiv 2505.18345)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_EXPORTS = {
    "Policy": "swg_fast.policy.policy",
    "load_policy": "swg_fast.policy.policy",
    "SamplingConfig": "swg_fast.policy.sampling",
    "Execution": "swg_fast.policy.sampling",
    "Sampler": "swg_fast.policy.torch_operator",
    "Samples": "swg_fast.policy.backends.job",
    "ScoreNetwork": "swg_fast.method.networks",
    "TwinQ": "swg_fast.method.networks",
    "ValueNetwork": "swg_fast.method.networks",
    "NoiseSchedule": "swg_fast.method.schedule",
    "UsageError": "swg_fast.common.errors",
    "load_dataset": "swg_fast.data",
    "evaluate": "swg_fast.evaluation.episodes",
    "train": "swg_fast.evaluation.train",
    "distill": "swg_fast.training.prepare_distillation",
    "rank": "swg_fast.training.rank",
}
_ROOMS = ("data", "envs", "evaluation", "kernels", "method", "policy", "reference", "training")
__all__ = ["Execution", "NoiseSchedule", "Policy", "Sampler", "Samples", "SamplingConfig", "ScoreNetwork",
           "TwinQ", "UsageError", "ValueNetwork", "__version__", "distill", "evaluate", "load_dataset",
           "load_policy", "rank", "train"]

if TYPE_CHECKING:
    from swg_fast.common.errors import UsageError
    from swg_fast.data import load_dataset
    from swg_fast.evaluation.episodes import evaluate
    from swg_fast.evaluation.train import train
    from swg_fast.method.networks import ScoreNetwork, TwinQ, ValueNetwork
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.backends.job import Samples
    from swg_fast.policy.policy import Policy, load_policy
    from swg_fast.policy.sampling import Execution, SamplingConfig
    from swg_fast.policy.torch_operator import Sampler
    from swg_fast.training.prepare_distillation import distill
    from swg_fast.training.rank import rank


def __getattr__(name: str) -> Any:
    """Loads on first use: a command's --help should not wait for torch."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _ROOMS:
        return import_module(f"swg_fast.{name}")
    raise AttributeError(f"module 'swg_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion shows: the public names and the rooms."""
    return sorted({*__all__, *_ROOMS})
