"""Parts of benchmarks/training.py that need whole runs: a run's costs besides its steps, and whether a
resumed run ends in the same policy."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swg_fast.common.hardware import keep_to_cores

OVERHEAD_STEPS = {"critic_steps": 2000, "actor_steps": 1000}  # states are saved every 10,000 by default


def make_data() -> Any:
    """A hundred episodes of 1000 random transitions with Ant Maze's sizes."""
    import numpy as np

    from swg_fast.data.transitions import to_transitions

    rng, n = np.random.default_rng(0), 100_000
    return to_transitions({
        "observations": rng.standard_normal((n, 29), np.float32),
        "actions": np.tanh(rng.standard_normal((n, 8), np.float32)),
        "rewards": (rng.random(n) < 0.01).astype(np.float32), "terminals": np.zeros(n, bool),
        "timeouts": np.arange(n) % 1000 == 999})


def measure(connection: Any, cores: list[int]) -> None:
    """Sends a record of both from ``cores``; the main function of a process."""
    keep_to_cores(cores)
    import torch

    torch.set_num_threads(len(cores))
    data = make_data()
    with tempfile.TemporaryDirectory() as folder:
        connection.send({"overhead": overhead(data, Path(folder) / "profiled"),
                         "resume": resumes(data, Path(folder))})


def overhead(data: Any, out: Path) -> dict[str, Any]:
    """Seconds by part, as ``swg-fast train --profile`` counts them, with logs as often as by default and
    states at least as often; ``share`` is the share of all parts but steps and random numbers."""
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train
    from swg_fast.training.settings import TrainSettings

    options = LoopOptions(out / "states", profile=True)
    logger = "tensorboard" if find_spec("tensorboard") else "none"
    train(data, TrainSettings(actor_batch=256, **OVERHEAD_STEPS), out, logger=logger, options=options)
    return {"logger": logger, **OVERHEAD_STEPS, "log_every": options.log_every,
            "phases": {phase: {"share": clock.overhead(), "seconds": clock.seconds}
                       for phase, clock in options.clocks.items()}}


def resumes(data: Any, folder: Path) -> dict[str, bool]:
    """For each phase, whether a run that stops within it and resumes ends in the same policy, bit for bit, as
    a run that does not stop."""
    import torch
    from safetensors.torch import load_file

    from swg_fast.training.loop import Interrupted, LoopOptions
    from swg_fast.training.run import train
    from swg_fast.training.settings import TrainSettings

    stop, same = 25, {}
    for phase, steps in (("critic", (40, 20)), ("actor", (20, 40))):
        settings = TrainSettings(critic_steps=steps[0], actor_steps=steps[1], actor_batch=256)
        straight, broken = folder / f"{phase}-straight", folder / f"{phase}-broken"
        options = LoopOptions(folder, progress=False)
        expected = load_file(train(data, settings, straight, options=options) / "model.safetensors")
        try:
            train(data, settings, broken, options=replace(options, stop_after=stop))
            raise AssertionError(f"a run that should stop after {stop} steps did not")
        except Interrupted as interrupted:
            assert str(interrupted).startswith(f"{phase} stopped at step {stop}"), interrupted
        found = load_file(train(data, settings, broken, resume=True, options=options) / "model.safetensors")
        same[phase] = found.keys() == expected.keys() and all(
            torch.equal(found[name], tensor) for name, tensor in expected.items())
    return same


def markdown(found: dict[str, Any]) -> str:
    """The tables of docs/cpu-notes.md."""
    lines = ["| steps a second | batch | cores | swg-fast | plain PyTorch | JAX | times plain | times JAX |",
             "|---|---|---|---|---|---|---|---|"]
    for row in found["results"]:
        if row["precision"] != "fp32":  # recorded while bf16 had compiled steps too
            continue
        rates = (f"{row[key]:.1f}" for key in
                 ("steps_per_second", "plain_steps_per_second", "jax_steps_per_second"))
        lines.append("| " + " | ".join((
            f"{row['phase']}, {row['precision']}", str(row["batch"]), str(row["cores"]), *rates,
            f"{row['times_plain']:.2f}", f"{row['ratio']:.2f}")) + " |")
    whole = found["whole_run"]
    lines += ["", "| share of a whole run, one core | steps and random numbers | saved states | held-out "
              "losses and logs | progress bar | resumed bit for bit |", "|---|---|---|---|---|---|"]
    for phase, record in whole["overhead"]["phases"].items():
        seconds = record["seconds"]
        total = sum(seconds.values())
        shares = (f"{seconds[part] / total:.2%}"
                  for part in ("saved states", "held-out losses and logs", "progress bar"))
        lines.append(f"| {phase} | {1 - record['share']:.2%} | " + " | ".join(shares)
                     + f" | {'yes' if whole['resume'][phase] else 'NO'} |")
    return "\n".join([f"Machine: {found['machine']}, {found['cores']} cores.", "", *lines])
