"""Everything that decides a training run, in one flat record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from swg_fast.errors import UsageError


@dataclass(frozen=True)
class TrainSettings:
    """Defaults are the paper's; a task's preset changes expectile, dropout and rewards."""

    # critic (IQL)
    critic_steps: int = 500_000
    critic_batch: int = 256
    critic_lr: float = 3e-4
    discount: float = 0.99
    polyak: float = 0.005  # rate of the target Q's moving average
    expectile: float = 0.7  # tau of the value loss and of the expectile weights
    reward_transform: str = "none"  # none, minus_one, or return_range (locomotion)
    # weights
    weight_function: str = "expectile"
    weight_parameter: float | None = None  # tau or alpha; None: the expectile, or the default
    rescale_weights: bool = False
    # network
    hidden_dim: int = 256
    num_blocks: int = 3
    weight_head: str = "early"
    dropout: float = 0.1
    # diffusion
    schedule: str = "vp"
    num_steps: int = 15  # T
    actor_steps: int = 1_000_000
    actor_batch: int = 1024
    actor_lr: float = 3e-4
    weight_decay: float = 1e-4
    cosine_decay: bool = True
    ema_rate: float = 0.001
    # the run
    seed: int = 0
    held_out: float = 0.05  # share of the episodes kept for validation
    precision: str = "fp32"  # of the diffusion's forward and backward pass: fp32 or bf16 autocast

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
