"""Data that need code of their own: refused wherever they are loaded, and loaded where the user trusts it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import run_cli
from odd_environments import Plain
from small_runs import SMALL

from swg_fast import UsageError, load_dataset
from swg_fast.envs import make_env
from swg_fast.sweep import store
from swg_fast.training.prepare import prepare_run
from swg_fast.training.run_config import read_config

minari = pytest.importorskip("minari", reason="Minari is not installed (extra 'minari')")
from minari.data_collector import EpisodeBuffer  # noqa: E402

TASK, CODE = "minari:own/plain-v0", "odd_environments:Plain"


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    """A dataset that leaves its spaces out, so that Minari makes its environment to learn them."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    n, rng = 20, np.random.default_rng(0)
    episodes = [EpisodeBuffer(id=number, observations=rng.normal(size=(n + 1, 3)).astype("f4"),
                              actions=rng.random((n, 1)).astype("f4"), rewards=list(rng.random(n)),
                              terminations=[False] * n, truncations=[False] * (n - 1) + [True], infos=None)
                for number in range(4)]
    minari.create_dataset_from_buffers(
        "own/plain-v0", episodes, env="Pendulum-v1", observation_space=Plain.observation_space,
        action_space=Plain.action_space, author="x", author_email="x@example.org",
        code_permalink="https://example.org", algorithm_name="x", description="x")
    file = tmp_path / "minari" / "own" / "plain-v0" / "data" / "metadata.json"
    said = json.loads(file.read_text())
    spec = json.loads(said["env_spec"]) | {"entry_point": CODE, "id": "Own-v0"}
    said |= {"env_spec": json.dumps(spec)}
    file.write_text(json.dumps({k: v for k, v in said.items() if not k.endswith("_space")}))


def configured(trust):
    def run(folder):
        (folder / "own.toml").write_text(f'task = "{TASK}"\ntrust = {list(trust)}\n')
        return prepare_run(out=folder / "run", config=folder / "own.toml").data

    return run


LOADERS = {
    "load_dataset": lambda trust, folder: load_dataset(TASK, trust=trust),
    "make_env": lambda trust, folder: make_env(TASK, trust=trust),
    "a training": lambda trust, folder: prepare_run(TASK, out=folder / "run", trust=tuple(trust)).data,
    "a configuration": lambda trust, folder: configured(trust)(folder),
    "a sweep": lambda trust, folder: store.hash_data(TASK, TASK, trust),
}


@pytest.mark.parametrize("name", LOADERS)
def test_data_that_need_code_are_loaded_where_it_is_trusted(name, tmp_path):
    with pytest.raises(UsageError, match=f"asks to run {CODE}.*--trust {CODE}") as error:
        LOADERS[name]([], tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    assert LOADERS[name]([CODE], tmp_path) is not None


def test_commands_take_trust(tmp_path):
    small = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", value)]
    inspect = ("inspect", "run", "--dataset", TASK, "--states", 4, "-n", 4, "--quiet")
    for command in (("train", TASK, "--out", "run", "--logger", "none", *small), inspect):
        refused = run_cli(*command, cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1) and CODE in refused.stderr, refused
        done = run_cli(*command, "--trust", CODE, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert read_config(tmp_path / "run" / "config.toml")["trust"] == (CODE,)
    assert (tmp_path / "run" / "inspect" / "inspect.json").is_file()


def test_a_sweep_takes_trust(tmp_path):
    (tmp_path / "own.toml").write_text(f'task = "{TASK}"\n[train]\nseed = 0\n')
    refused = run_cli("sweep", "own.toml", "--out", "out", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1) and CODE in refused.stderr, refused
    trusted = ("--set", f"run.trust=['{CODE}']", "--set", "train.critic_batch=2000000000")
    refused = run_cli("sweep", "own.toml", "--out", "out", *trusted, cwd=tmp_path)
    assert "critic_batch" in refused.stderr, refused
