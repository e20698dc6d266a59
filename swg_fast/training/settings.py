"""Everything that decides a training run, in one flat record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from swg_fast.errors import UsageError
from swg_fast.networks import WEIGHT_HEADS
from swg_fast.schedule import SCHEDULES
from swg_fast.training.rewards import REWARD_TRANSFORMS
from swg_fast.weights import WEIGHT_FUNCTIONS

PRECISIONS = ("fp32", "bf16")
OPEN = {"min_open": True, "max_open": True}


def _setting(default: Any, help: str, *, choices: tuple[str, ...] | None = None, **bounds: Any) -> Any:
    """A field, with what a person is told of it: its help, and the values that it takes, either
    ``choices`` or the bounds of a number (min, max, min_open, max_open)."""
    return field(default=default, metadata={"help": help, "choices": choices, "bounds": bounds})


@dataclass(frozen=True)
class TrainSettings:
    """Defaults are the paper's; a task's preset changes expectile, dropout and rewards.

    The command line's options, with their help, are made from these fields.
    """

    # critic (IQL)
    critic_steps: int = _setting(500_000, "Gradient steps of the critic.", min=1)
    critic_batch: int = _setting(256, "Transitions a critic step.", min=1)
    critic_lr: float = _setting(3e-4, "Adam's learning rate for Q and V.", min=0, min_open=True)
    discount: float = _setting(0.99, "Discount gamma of the TD target.", min=0, max=1, **OPEN)
    polyak: float = _setting(0.005, "Rate of the target Q's moving average.", min=0, max=1, min_open=True)
    expectile: float = _setting(0.7, "tau of the value loss and of the expectile weights.", min=0, max=1,
                                **OPEN)
    reward_transform: str = _setting(
        "none", "What rewards become: minus_one is r - 1, return_range is 1000 r over the span of returns.",
        choices=REWARD_TRANSFORMS)
    # weights
    weight_function: str = _setting("expectile", "Weight w(u) of the advantage u.",
                                    choices=tuple(WEIGHT_FUNCTIONS))
    weight_parameter: float | None = _setting(
        None, "tau or alpha of the weight function. Left out: --expectile, or the function's own.")
    rescale_weights: bool = _setting(False, "Move the weights linearly onto [0, 1].")
    # network
    hidden_dim: int = _setting(256, "Width of the score network.", min=1)
    num_blocks: int = _setting(3, "Residual blocks; the early weight head needs two.", min=1)
    weight_head: str = _setting("early", "Where the weight's noise is read out: after the second block, or "
                                         "after the last with the action's.", choices=WEIGHT_HEADS)
    dropout: float = _setting(0.1, "Dropout of the score network.", min=0, max=1, max_open=True)
    # diffusion
    schedule: str = _setting("vp", "Noise schedule.", choices=SCHEDULES)
    num_steps: int = _setting(15, "Denoising steps T.", min=1)
    actor_steps: int = _setting(1_000_000, "Gradient steps of the diffusion.", min=1)
    actor_batch: int = _setting(1024, "Transitions a diffusion step.", min=1)
    actor_lr: float = _setting(3e-4, "AdamW's learning rate for the score network.", min=0, min_open=True)
    weight_decay: float = _setting(1e-4, "AdamW's weight decay.", min=0)
    cosine_decay: bool = _setting(True, "Let the diffusion's learning rate fall to 0 along a cosine.")
    ema_rate: float = _setting(0.001, "Rate of the moving average that acts.", min=0, max=1, min_open=True)
    # the run
    seed: int = _setting(0, "Seed of everything random.", min=0)
    held_out: float = _setting(0.05, "Share of the episodes kept for validation.", min=0, max=1,
                               max_open=True)
    precision: str = _setting("fp32", "Of the diffusion's passes; parameters stay fp32.",
                              choices=PRECISIONS)

    def __post_init__(self) -> None:
        for name in ("critic_steps", "critic_batch", "num_steps", "actor_steps", "actor_batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision must be fp32 or bf16, got {self.precision!r}")
        for name in ("discount", "expectile"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise UsageError(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0 or not 0.0 <= self.held_out < 1.0:
            raise UsageError("dropout and held_out must lie in [0, 1)")

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> TrainSettings:
        """Settings from a checkpoint's JSON; keys of other versions are an error."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(f"unknown training setting(s): {', '.join(unknown)}")
        return cls(**values)  # type: ignore[arg-type]
