"""Everything that decides a distillation, and what a run of one needs beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from swg_fast.common.checks import MAX_CANDIDATES, MAX_SCALE, MAX_SEED
from swg_fast.common.errors import UsageError
from swg_fast.common.settings_fields import check_fields, like, setting
from swg_fast.method.networks import MOST
from swg_fast.method.sampler_names import SAMPLERS
from swg_fast.method.schedule import MAX_STEPS
from swg_fast.training.run_config import RunOptions
from swg_fast.training.settings import MOST_ROWS, MOST_STEPS, PRECISIONS, TrainSettings

MOST_PAIRS = 2**31
DETERMINISTIC = tuple(name for name, kind in SAMPLERS.items() if not kind.stochastic)
SCALE: dict[str, Any] = {"bottom": -MAX_SCALE, "top": MAX_SCALE}


@dataclass(frozen=True)
class DistillSettings:
    """What a student learns, and how. The command line's options are made from these fields."""

    # the teacher's walk
    sampler: str = setting("dpmpp_2m", "The walk that the student learns: a sampler that draws no noise on "
                                       "the way.", choices=DETERMINISTIC)
    sampler_steps: int | None = setting(None, "Steps of that walk. Left out: all trained ones, at most 10.",
                                        min=1, top=MAX_STEPS)
    guidance_scale: float | None = setting(None, "Guidance scale of that walk. Left out: the teacher's own.",
                                           **SCALE)
    guidance_range: tuple[float, float] | None = setting(
        None, "Learn all guidance scales between these two: the student is given the scale beside the state, "
              "and sampling chooses one.")
    # the pairs of noise and walk's end
    pairs: int | None = setting(None, "Pairs that are drawn and learnt from. Left out: 400,000, each learnt "
                                      "several times; on a GPU one for every row of every batch.",
                                min=1, top=MOST_PAIRS)
    of_best: int | None = setting(
        None, "Learn the action that the policy keeps of this many candidates. Left out: learn where the "
              "walk of each noise ends.",
        min=2, top=MAX_CANDIDATES)
    temperature: float | None = setting(
        None, "With of_best: the temperature of its candidates. Left out: the policy's own.", min=0,
        top=MAX_SCALE)
    average_share: float | None = setting(
        None, "With of_best: learn the mean of this share of them, those that rank highest. Left out: the "
              "policy's own.", min=0, max=1)
    cold_share: float = setting(0.15, "Share of the pairs whose noise is scaled by a temperature between 0 "
                                      "and 1, so that the student knows those too.", min=0, max=1)
    # the student
    calls: int = setting(1, "Calls of the network for a candidate; each learns its part of the walk.", min=1,
                         top=MAX_STEPS)
    hidden_dim: int = setting(128, "Width of the student. One of the teacher's sizes begins from the "
                                   "teacher's weights.", min=1, top=MOST["hidden_dim"])
    num_blocks: int | None = setting(None, "Residual blocks of the student. Left out: the teacher's.", min=1,
                                     top=MOST["num_blocks"])
    # learning
    steps: int = setting(25_000, "Gradient steps.", min=1, top=MOST_STEPS)
    batch: int = setting(256, "Pairs a step.", min=1, top=MOST_ROWS)
    learning_rate: float = setting(1e-3, "Adam's learning rate, which falls to 0 along a cosine.", min=0,
                                   max=1, min_open=True)
    weight_loss: float = setting(8.0, "Factor of the weight's entry in the loss; an action's entry has 1.",
                                 min=0, min_open=True)
    ema_rate: float = setting(0.002, "Rate of the moving average that draws.", min=0, max=1, min_open=True)
    # the run
    seed: int = setting(0, "Seed of everything random.", min=0, top=MAX_SEED)
    held_out: float = setting(0.05, "Share of the episodes whose states are kept to measure the error.",
                              min=0, max=1, max_open=True)
    precision: str = setting("fp32", "Type of the training passes; parameters stay fp32. bf16 needs a GPU or "
                                      "a processor that has it.", choices=PRECISIONS)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.of_best is None:
            for name, value in self.of_candidates().items():
                raise UsageError(f"{name}={value:g} is that of the candidates of of_best; give that too, or "
                                 "leave it out (a student knows all temperatures up to 1)")
        if self.guidance_range is None:
            return
        low, high = self.guidance_range
        if self.guidance_scale is not None:
            raise UsageError("guidance_scale and guidance_range: give one of them")
        if not -MAX_SCALE <= low < high <= MAX_SCALE:
            raise UsageError(f"guidance_range={low:g}, {high:g}: give the lower end, then the higher one; "
                             "for one scale use guidance_scale")

    def of_candidates(self) -> dict[str, Any]:
        """The sampling settings of the candidates of ``of_best`` that are given."""
        given = {"temperature": self.temperature, "average_share": self.average_share}
        return {name: value for name, value in given.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as JSON has it."""
        values = asdict(self)
        return values | {"guidance_range": list(self.guidance_range) if self.guidance_range else None}

    def as_training(self) -> TrainSettings:
        """The settings of the diffusion's training that the student's steps share."""
        return TrainSettings(
            dropout=0.0, actor_steps=self.steps, actor_batch=self.batch, actor_lr=self.learning_rate,
            weight_loss=self.weight_loss, weight_decay=0.0, cosine_decay=True, ema_rate=self.ema_rate,
            seed=self.seed, held_out=self.held_out, precision=self.precision)


@dataclass(frozen=True)
class DistillOptions:
    """What a distillation needs beside its `DistillSettings`; none of it changes what is learnt."""

    teacher: str | None = setting(None, "The policy or run to learn from, where the command names none.")
    dataset: str | None = setting(
        None, "Where the states come from: a D4RL HDF5 file, minari:NAME or OGBench's .npz file. Left out: "
              "the run's dataset, or that of the policy's task.")
    trust: tuple[str, ...] = like(RunOptions, "trust", ())
    mirror: str | None = like(RunOptions, "mirror", None)
    device: str = like(RunOptions, "device", "auto")
    threads: int | None = like(RunOptions, "threads", None)
    log_every: int = like(RunOptions, "log_every", 500)
    save_every: int = like(RunOptions, "save_every", 2_000)
    keep_states: int = like(RunOptions, "keep_states", 2)
    logger: str = like(RunOptions, "logger", "none")
    keep_pairs: bool = setting(False, "Keep the pairs on disk after the distillation.")
    with_teacher: bool = setting(False, "Put teacher and student into one policy: the student draws unless a "
                                        "sampler is named, and --finish becomes possible.")

    def __post_init__(self) -> None:
        check_fields(self)
