"""Kills of a training at random moments, and bad input; writes the table of docs/reliability.md.

    python -m benchmarks.reliability --json benchmarks/results/reliability.json

SIGKILL ends a small training at random moments of its critic and actor phases; it resumes until it finishes.
Its policy must equal, bit for bit, that of an undisturbed training. Bad inputs are the cases of
tests/robustness, each of which must end in one line.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import h5py
import numpy as np
from tqdm import tqdm

from benchmarks.measuring import ROOT, save
from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import sha256

SETTINGS = ["--critic-steps", "12000", "--critic-batch", "32", "--actor-steps", "12000",
            "--actor-batch", "32", "--hidden-dim", "32", "--num-blocks", "2", "--save-every", "300",
            "--log-every", "300",
            "--logger", "none", "--threads", "1"]


def write_data(path: Path, rng: np.random.Generator) -> None:
    """Writes 2,000 recorded steps in D4RL's layout."""
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((2000, 29)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (2000, 8)).astype(np.float32)
        file["rewards"] = (rng.random(2000) < 0.1).astype(np.float32)
        file["terminals"] = np.zeros(2000, bool)
        file["timeouts"] = np.arange(2000) % 100 == 99


def command(data: Path, out: Path, resume: bool) -> list[str]:
    return [sys.executable, "-m", "swg_fast", "train", "antmaze-umaze-v2", "--dataset", str(data), "--out",
            str(out), *SETTINGS, *(["--resume"] if resume else [])]


def policy_hash(out: Path) -> str:
    return sha256(out / "policy" / "model.safetensors")


def kill_once(data: Path, out: Path, wait: float) -> bool:
    """Continues the training in ``out`` and kills it ``wait`` seconds after it has claimed its folder.
    Returns whether it was still running."""
    process = subprocess.Popen(command(data, out, (out / "run.json").exists()), stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, start_new_session=True)
    before = {path.name for path in (out / "states").glob("*")}
    while process.poll() is None and {path.name for path in (out / "states").glob("*")} == before:
        time.sleep(0.02)
    time.sleep(wait)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def kills(count: int, seed: int) -> dict[str, int]:
    """Kills trainings ``count`` times in all. Returns how many of them ended in the same policy."""
    rng, done, trainings, same = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder, tqdm(total=count, unit="kill") as bar:
        data = Path(folder) / "data.hdf5"
        write_data(data, np.random.default_rng(seed))
        subprocess.run(command(data, Path(folder) / "alone", False), check=True, capture_output=True)
        expected = policy_hash(Path(folder) / "alone")
        while done < count:
            out = Path(folder) / f"run{trainings}"
            for _ in range(min(5, count - done)):
                if not kill_once(data, out, rng.uniform(0.0, 1.5)):
                    break
                done += 1
                bar.update()
            if not (out / "policy" / "model_card.json").exists():
                subprocess.run(command(data, out, (out / "run.json").exists()), check=True,
                               capture_output=True)
            trainings += 1
            same += policy_hash(out) == expected
    return {"kills": done, "trainings": trainings, "same_policy": same}


def bad_inputs() -> dict[str, int]:
    """Runs the cases of tests/robustness. Returns how many passed and failed."""
    said = subprocess.run([sys.executable, "-m", "pytest", "tests/robustness"], cwd=ROOT,
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    counted = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", said.splitlines()[-1])}
    return {"passed": counted.get("passed", 0), "failed": counted.get("failed", 0) + counted.get("error", 0)}


def markdown(found: dict) -> str:
    killed, inputs = found["kills"], found["bad_inputs"]
    return "\n".join([
        "| tried | number | as it should be |", "|---|---|---|",
        f"| kill -9 of a training at a random moment, then `--resume` | {killed['kills']} kills of "
        f"{killed['trainings']} trainings | {killed['same_policy']} of {killed['trainings']} policies equal "
        "to the last bit that of a training left alone |",
        "| cases of tests/robustness: bad paths, datasets, checkpoints, numbers and arguments, signals, and "
        "odd input that is fine | "
        f"{inputs['passed'] + inputs['failed']} | {inputs['passed']} |"])


@click.command()
@click.option("--kills", "count", default=30)
@click.option("--seed", default=0)
@click.option("--note", default="", help="What to record beside the numbers.")
@click.option("--json", "json_path", type=Path, required=True)
def main(count: int, seed: int, note: str, json_path: Path) -> None:
    found = {"kills": kills(count, seed), "bad_inputs": bad_inputs(), "seed": seed, "note": note}
    save(json_path, found)
    click.echo(markdown(found))


if __name__ == "__main__":
    run(main)
