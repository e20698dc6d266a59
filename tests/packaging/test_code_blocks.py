"""Every code block of README.md and docs/ runs: Python as it stands, commands with a small budget."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import make_recording, run_cli, write_hdf5

from benchmarks.pages.__main__ import PAGES
from benchmarks.pages.blocks import ROOT
from benchmarks.pages.code import CodeBlock, code_blocks, commands
from swg_fast.policy import hub
from swg_fast.policy.checkpoint import find_checkpoint

SHOWN = {"text", "math", "bibtex"}  # languages of blocks that are no code
# What makes a command of the pages small; click takes the last value of an option.
STEPS = "--critic-steps 6 --actor-steps 6 --hidden-dim 16 --critic-batch 8 --actor-batch 8 --save-every 2"
SMALL = {
    "train": f"{STEPS} --logger none --device cpu",
    "evaluate": "--episodes 1 --episode-limit 3 --envs 1 --device cpu --quiet",
    "inspect": "--states 4 --candidates 4 --judge-candidates 4 --quiet",
    "distill": "--steps 4 --pairs 64 --batch 8 --device cpu",
    "rank": "--ranker-steps 6 --critic-steps 6 --value-steps 6 --device cpu --quiet",
    "toy": "--steps 4 --batch 8 --samples 20 --hidden-dim 16 --quiet",
}
# Commands that need a network, a GPU, a checkout of SWG-JAX or minutes: their options are checked, no more.
PARSED = {"download", "tune", "import-jax", "sweep", "report"}
# What makes Python of the pages small or lets it end.
IN_PYTHON = {'preset="small",': 'preset="small", critic_steps=6, actor_steps=6,',
             "while True:": "for _ in range(2):",
             "with_teacher=True)": "with_teacher=True, steps=4, pairs=64, batch=8)"}


def own_robot() -> dict[str, Any]:
    """What docs/own-data.md has of its reader: a recording and a robot."""
    raw = make_recording(200, 20, 3, 1)
    raw["next_observations"] = np.roll(raw["observations"], -1, axis=0)
    env = gymnasium.make("Pendulum-v1")
    robot = SimpleNamespace(step=lambda action: env.step(action)[0])
    return raw | {"make_robot": lambda: gymnasium.make("Pendulum-v1"), "env": env, "robot": robot,
                  "observation": env.reset(seed=0)[0]}


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if any(block.language not in SHOWN for block in code_blocks(page))]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages name, where a task's data are small."""
    for task, states, actions in (("antmaze-umaze-v2", 29, 8), ("antmaze-large-play-v2", 29, 8),
                                  ("hopper-medium-v2", 11, 3), ("hopper-medium-replay-v2", 11, 3)):
        write_hdf5(tmp_path / f"{task}.hdf5", make_recording(200, 20, states, actions))
    shutil.copy(tmp_path / "hopper-medium-v2.hdf5", tmp_path / "hopper.hdf5")
    write_hdf5(tmp_path / "robot.hdf5", make_recording(200, 20, 3, 1))
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(find_checkpoint("antmaze-umaze-v2"), tmp_path / "me" / "umaze")  # in the hub's place
    monkeypatch.setattr(hub, "uploaded", lambda folder, repo_id, **options: repo_id)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, workplace):
    names = {"__name__": "__main__"} | own_robot()
    for block in code_blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(small(block.text), where, "exec"), names)
        elif block.language == "toml":
            assert tomllib.loads(block.text), where
        elif block.language not in SHOWN:
            assert block.language == "", f"{where}: unknown language {block.language!r}"
            run_commands(block, where, workplace)


def small(text: str) -> str:
    """The code with its budgets cut; those that a page gives itself stay."""
    for part, instead in IN_PYTHON.items():
        text = text if "critic_steps" in text else text.replace(part, instead)
    return text.replace("episodes=10", "episodes=1")


def run_commands(block: CodeBlock, where: str, folder: Path) -> None:
    """Runs the block's commands of swg-fast; of others what they call must be there."""
    for command in commands(block):
        for part in command.split(" ; "):
            program, *arguments = shlex.split(part)
            if program == "swg-fast":
                run_swg_fast(arguments, where, folder)
            elif program == "make":
                assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(), where
            elif program == "python" and arguments[0] != "-m":
                assert (ROOT / arguments[0]).is_file(), where
            elif program == "python":
                assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file() or (
                    ROOT / arguments[1].replace(".", "/")).is_dir(), where
            elif program == "docker":
                assert arguments[0] in ("build", "run") and (ROOT / "Dockerfile").is_file(), where
            else:
                assert program in ("pip", "git"), f"{where}: {command}"


def run_swg_fast(arguments: list[str], where: str, folder: Path) -> None:
    from swg_fast.cli.main import cli

    name, *rest = arguments
    if name in PARSED:
        command = cli.get_command(None, name)
        assert command is not None, where
        command.make_context(name, rest)  # raises for an option that it does not have
        return
    data = ["--dataset", f"{rest[0]}.hdf5"] if name == "train" and "--dataset" not in rest else []
    out = run_cli(*arguments, *data, *shlex.split(SMALL.get(name, "")), cwd=folder)
    assert out.returncode == 0, f"{where}: swg-fast {shlex.join(arguments)}\n{out.stdout}{out.stderr}"
