"""Where a run's curves are drawn: TensorBoard, Weights & Biases, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from swg_fast.common.atomic_files import write_json
from swg_fast.common.checks import choice
from swg_fast.common.errors import UsageError, note
from swg_fast.common.optional_packages import installed, need
from swg_fast.common.quiet import quiet
from swg_fast.common.read_files import read_json

LOGGERS = ("tensorboard", "wandb", "none")


class Writer(Protocol):
    """What the training loop writes to; TensorBoard's SummaryWriter is one."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One point of the curve ``tag``, such as ``critic/value_loss``."""

    def close(self) -> None:
        """Writes what is left."""


class WandbWriter:
    """Weights & Biases. Each phase counts its own steps; a resumed run continues the same curves."""

    def __init__(self, folder: Path, config: Mapping[str, Any], resume: bool) -> None:
        wandb = need("wandb", "--logger wandb")
        known = folder / "wandb-run.json"
        mend = "delete it to begin new curves"
        name = read_json(known, KnownRun, mend).id if resume and known.is_file() else None
        self.run = wandb.init(project="swg-fast", name=folder.resolve().parent.name, dir=str(folder), id=name,
                              config=dict(config), resume="allow" if name else None)
        write_json(known, {"id": self.run.id})
        for phase in ("critic", "ranker", "critics", "actor", "student", "score"):
            self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.run.log({tag: scalar_value, f"{tag.partition('/')[0]}/step": global_step})

    def close(self) -> None:
        self.run.finish()


@dataclass(frozen=True)
class KnownRun:
    """The run's name at Weights & Biases."""

    id: str


def check_logger(kind: str) -> None:
    """`UsageError` where ``kind`` is no logger, and where Weights & Biases is not installed or has no login.
    Without TensorBoard a `Note` says that no curves are drawn. Call it before long work."""
    choice("logger", kind, LOGGERS)
    if kind == "tensorboard" and not installed(kind):
        note("TensorBoard is not installed, so no curves are drawn; OUT/logs/history.jsonl has every number. "
             "pip install 'swg-fast[train]' brings it")
    if kind == "wandb":
        wandb = need("wandb", "--logger wandb")
        with quiet():  # newer versions say that this way to ask is old
            login = wandb.api.api_key
        if os.environ.get("WANDB_MODE", "online") == "online" and not login:
            raise UsageError("--logger wandb: there is no login on this machine; run 'wandb login', or set "
                             "WANDB_MODE=offline")


@contextmanager
def open_writer(kind: str, folder: Path, config: Mapping[str, Any], resume: bool) -> Iterator[Writer | None]:
    """The writer of a run whose logs are in ``folder``; None for ``none``, and without TensorBoard."""
    if choice("logger", kind, LOGGERS) == "none" or (kind == "tensorboard" and not installed(kind)):
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    writer: Writer
    if kind == "wandb":
        writer = WandbWriter(folder, config, resume)
    else:
        writer = need("torch.utils.tensorboard", "--logger tensorboard").SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
