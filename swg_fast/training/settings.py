"""Everything that decides a training run, in one flat record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from swg_fast.common.checks import MAX_SEED
from swg_fast.common.errors import UsageError
from swg_fast.common.settings_fields import check_fields, setting
from swg_fast.method.networks import MOST, WEIGHT_HEADS
from swg_fast.method.schedule import MAX_STEPS, SCHEDULES
from swg_fast.method.weight_family import DEFAULT, FAMILY, WeightFamily
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS, check_weight_function
from swg_fast.training.rewards import REWARD_TRANSFORMS

MOST_STEPS = 10**9  # would take years
MOST_ROWS = 2**16  # of a batch
RANKER_STEPS = 10_000  # where nobody says
# What decides the critic: trainings that differ only in other settings have the same critic.
CRITIC = ("critic_steps", "critic_batch", "critic_lr", "critic_cosine_decay", "discount", "polyak",
          "expectile", "reward_transform", "clip_targets", "value_norm", "action_noise", "seed", "held_out")
PRECISIONS = ("fp32", "bf16")
OPEN: dict[str, Any] = {"min_open": True, "max_open": True}


@dataclass(frozen=True)
class TrainSettings:
    """Defaults are the paper's; a task's preset changes expectile, dropout and rewards.

    The command line's options, with their help, are made from these fields.
    """

    # critic (IQL)
    critic_steps: int = setting(500_000, "Gradient steps of the critic.", min=1, top=MOST_STEPS)
    critic_batch: int = setting(256, "Transitions a critic step.", min=1, top=MOST_ROWS)
    critic_lr: float = setting(3e-4, "Adam's learning rate for Q and V.", min=0, max=1, min_open=True)
    critic_cosine_decay: bool = setting(False, "Let the critic's learning rate fall to 0 along a cosine.")
    discount: float = setting(0.99, "Discount gamma of the TD target.", min=0, max=1, **OPEN)
    polyak: float = setting(0.005, "Rate of the target Q's moving average.", min=0, max=1, min_open=True)
    expectile: float = setting(0.7, "tau of the value loss and of the expectile weights.", min=0, max=1,
                                **OPEN)
    reward_transform: str = setting(
        "none", "What rewards become: minus_one is r - 1, return_range is 1000 r over the span of returns.",
        choices=REWARD_TRANSFORMS)
    clip_targets: bool = setting(
        False, "Clip the target Q and the next state's V that the critic learns from to the returns that the "
               "rewards allow.")
    value_norm: bool = setting(True, "LayerNorm on the state that V reads, which hides how large the state "
                                     "is; in a wide maze, how far out.")
    action_noise: float = setting(
        0.0, "Standard deviation of noise on the actions that the critic learns from: it then judges what "
             "they intend, and not how they were disturbed.", min=0)
    critics: int | None = setting(
        None, "Train this many more critics, each on its own, for --select lcb_q; the weights are those "
              "of the first critic. Left out: none.", min=2, top=MOST["members"])
    # weights
    weight_function: str = setting(
        "expectile", "Weight w(u) of the advantage u; family: one network for many, chosen from at sampling.",
        choices=(*WEIGHT_FUNCTIONS, FAMILY))
    weight_parameter: float | None = setting(
        None, "tau or alpha of the weight function. Left out: --expectile, or the function's own.")
    weight_family: str | None = setting(
        None, f"The family's functions, FUNCTION:LOW:HIGH each, comma-separated. Left out: {DEFAULT}.")
    rescale_weights: bool = setting(False, "Move the weights linearly onto [0, 1].")
    # network
    hidden_dim: int = setting(256, "Width of the score network.", min=1, top=MOST["hidden_dim"])
    num_blocks: int = setting(3, "Residual blocks; the early weight head needs two.", min=1,
                              top=MOST["num_blocks"])
    weight_head: str = setting("early", "Where the weight's noise is read out: after the second block, or "
                                         "after the last with the action's.", choices=WEIGHT_HEADS)
    dropout: float = setting(0.1, "Dropout of the score network.", min=0, max=1, max_open=True)
    # diffusion
    schedule: str = setting("vp", "Noise schedule.", choices=SCHEDULES)
    num_steps: int = setting(15, "Denoising steps T.", min=1, top=MAX_STEPS)
    actor_steps: int = setting(1_000_000, "Gradient steps of the diffusion.", min=1, top=MOST_STEPS)
    actor_batch: int = setting(1024, "Transitions a diffusion step.", min=1, top=MOST_ROWS)
    actor_lr: float = setting(3e-4, "AdamW's learning rate for the score network.", min=0, max=1,
                              min_open=True)
    min_travel: float = setting(
        0.0, "Leave data out of the diffusion where the body travels less than this many metres in 20 steps: "
             "it has arrived, or fallen. For mazes, whose state begins with the place.",
        min=0)
    weight_loss: float = setting(1.0, "Factor of the weight's entry in the diffusion's loss; an action's "
                                      "entry has 1.", min=0, min_open=True)
    read_share: float = setting(0.0, "Share of the diffusion's rows whose action is clean and whose weight "
                                     "is all noise: what --ranking read needs.", min=0, max=1, max_open=True)
    weight_decay: float = setting(1e-4, "AdamW's weight decay.", min=0, max=1)
    cosine_decay: bool = setting(True, "Let the diffusion's learning rate fall to 0 along a cosine.")
    ema_rate: float = setting(0.001, "Rate of the moving average that draws; higher in the first steps.",
                              min=0, max=1, min_open=True)
    # the ranker, for --ranking ranker and --select lcb_weight
    rankers: int | None = setting(
        None, "Networks of the ranker, which regress the expected weight of an action. Left out: 2 where "
              "ranker_steps is above 0, else none.", min=2, top=MOST["members"])
    ranker_steps: int = setting(0, f"Gradient steps of the ranker. 0: {RANKER_STEPS:,} if rankers is given, "
                                   "else no ranker.", min=0, top=MOST_STEPS)
    ranker_hidden_dim: int = setting(128, "Width of the ranker's networks.", min=1, top=MOST["hidden_dim"])
    ranker_others: float = setting(0.0, "Factor, in the ranker's loss, of actions beside the data's; their "
                                        "target is the lowest weight.", min=0)
    # the run
    seed: int = setting(0, "Seed of everything random.", min=0, top=MAX_SEED)
    held_out: float = setting(0.05, "Share of the episodes kept for validation.", min=0, max=1,
                               max_open=True)
    precision: str = setting("fp32", "Type of the diffusion's passes; parameters stay fp32. bf16 needs a GPU "
                                      "or a processor that has it.",
                              choices=PRECISIONS)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rankers is not None and not self.ranker_steps:
            object.__setattr__(self, "ranker_steps", RANKER_STEPS)
        if self.weight_head == "early" and self.num_blocks < 2:
            raise UsageError("weight_head='early' with num_blocks=1: the early head reads the second block, "
                             "so use num_blocks >= 2, or weight_head='joint'")
        if self.weight_function == FAMILY:
            if self.weight_parameter is not None or self.rescale_weights:
                raise UsageError("a family has its parameters in --weight-family and scales its weights "
                                 "itself; leave out weight_parameter and rescale_weights")
            if self.ranker_steps:
                raise UsageError("a ranker regresses the weight of one function and a family has many; leave "
                                 "out rankers and ranker_steps")
            self.family()
        elif self.weight_family is not None:
            raise UsageError(f"weight_family={self.weight_family!r} with weight_function="
                             f"{self.weight_function!r}: use weight_function='family', or leave it out")
        else:
            check_weight_function(self.weight_function, self.parameter_of_weights())

    def family(self) -> WeightFamily | None:
        """The family of weight functions; None where there is one function."""
        if self.weight_function != FAMILY:
            return None
        return WeightFamily.parse(DEFAULT if self.weight_family is None else self.weight_family)

    def parameter_of_weights(self) -> float | None:
        """tau or alpha of the weight function; the critic's expectile where a tau is left out."""
        if self.weight_parameter is None and WEIGHT_FUNCTIONS[self.weight_function].parameter == "tau":
            return self.expectile
        return self.weight_parameter

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
