"""Sweeps' plans: what cannot run is refused in one line, which names file and key, before anything starts."""

from __future__ import annotations

import pytest
import torch
from conftest import run_cli
from small_runs import small_data

from swg_fast.common.atomic_files import write_json
from swg_fast.sweep import cells, store
from swg_fast.sweep.plan_file import MOST_BYTES, read_plan
from swg_fast.sweep.settings import RunSettings

MAZE = 'task = "antmaze-umaze-v2"\npolicy = "antmaze-umaze-v2"\n'
HOPPER = 'task = "hopper-medium-v2"\n'
TOY = 'toy.name = "spiral"\n'
EXPECTED = 'evaluate.select = "expected_weight"\n'
RANKER = 'evaluate.ranking = "ranker"'
WALK = 'evaluate.sampler = "ddpm"\n'
TREE = "evaluate.n_candidates = 16\nevaluate.leaves = "
HUNDRED = ", ".join(f"0.{i:02d}1" for i in range(100))
SIX = "".join(f"grid.train.{name} = [{HUNDRED}]\n" for name in (
    "discount", "polyak", "expectile", "dropout", "held_out", "read_share"))
VIEW = '[[report]]\nrows = "seed"\npanels = "task"\nwhere.kind = "evaluate"'
FAMILY = 'train.weight_function = "family"\n'

BAD = {
    # the file
    "unknown part": ("titel = 'x'", "unknown part 'titel'; a sweep has"),
    "no toml": ("title = ", "not valid TOML"),
    "a grid that is no table": (HOPPER + "grid = 3", "'grid' is a table; write it as [grid]"),
    "points that are no tables": (HOPPER + "points = [1]", "'points' is a list of tables"),
    "a date": (HOPPER + "train.seed = 1979-05-27",
               "train.seed is a date or a time (1979-05-27); write a number"),
    "a time in an axis": (HOPPER + "grid.train.seed = [0, 07:32:00]", "grid.train.seed is a date or a time"),
    "a date as title": ("title = 1979-05-27T07:32:00Z\n" + TOY, "title is a date or a time"),
    "a number as title": ("title = 3\n" + TOY, "title must be a string, got 3"),
    "nan": (HOPPER + "train.discount = nan", "train.discount is nan; write a finite number"),
    "infinity": (HOPPER + "grid.evaluate.guidance_scale = [1, -inf]",
                 "guidance_scale is -inf; write a finite"),
    "a table as setting": (HOPPER + "train.seed.first = 1",
                           "train.seed is a table; write train.seed = VALUE"),
    "too many bytes": (f"title = '{'x' * MOST_BYTES}'", "write fewer values"),
    # axes and counts
    "10^12 cells": (HOPPER + SIX, "1,000,000,000,000 cells, and a sweep has at most 10,000"),
    "too many points": (HOPPER + f"points = [{{train.seed = [{'1, ' * 9999}1]}}, {{}}]", "10,001 cells"),
    "axis without values": (HOPPER + "grid.train.seed = 1", "axis 'train.seed' needs a list of values"),
    "axis that is no setting": (HOPPER + "grid.seed = [1]", "axis 'seed' is no setting"),
    "label": (HOPPER + "[[grid.own]]\nlabel = [1]\ntrain.seed = 1",
              "axis 'own' has the label [1]; write a text"),
    "value of a cell": (HOPPER + "grid.train.seed = [0, -1]",
                        "cell train.seed = -1: [train] seed must be at least"),
    "two lines": (HOPPER + '[[grid.own]]\nlabel = "a\\nb"\ntrain.seed = -1', "cell own = a b: [train] seed"),
    # training
    "unknown train": (HOPPER + "train.critc_steps = 1",
                      "[train] unknown setting 'critc_steps'; did you mean"),
    "range of train": (HOPPER + "train.discount = 2.0", "[train] discount must be finite and above 0"),
    "boolean for a number": (HOPPER + "train.seed = true", "[train] seed must be a whole number, got True"),
    "number for a boolean": (HOPPER + "train.value_norm = 1",
                             "[train] value_norm must be true or false, got 1"),
    "early head": (HOPPER + "train.num_blocks = 1", "[train] weight_head='early' with num_blocks=1"),
    "dataset": (HOPPER + "dataset = 3", "dataset must be a string, got 3"),
    # what is evaluated
    "no task": ("[train]\nseed = 1", "no task; set task ="),
    "unknown task": ('task = "hopper-v9"', "unknown environment 'hopper-v9'; did you mean Hopper-v5"),
    "a number as task": ("task = 3", "task must be a string, got 3"),
    "no policy": (HOPPER + 'policy = "nowhere"', "no checkpoint at 'nowhere'"),
    "a number as policy": (HOPPER + "policy = 3", "policy must be a string, got 3"),
    "another task's policy": (HOPPER + 'policy = "antmaze-umaze-v2"', "is for states of 29 and actions of 8"),
    "policy and training": (MAZE + "train.seed = 1", "a cell has either a policy or training settings"),
    "policy and rank": (MAZE + "[rank]", "[rank] draws states from a training's data"),
    "unknown evaluate": (HOPPER + "evaluate.candidates = 1",
                         "[evaluate] unknown setting 'candidates'; did you"),
    "episodes": (MAZE + 'evaluate.episodes = "many"',
                 "[evaluate] episodes must be a whole number, got 'many'"),
    "no episodes": (MAZE + "evaluate.episodes = -1", "[evaluate] episodes must be at least 1, got -1"),
    "workers": (MAZE + "evaluate.workers = 0", "[evaluate] workers must be at least 1, got 0"),
    "seeds": (MAZE + "evaluate.seed = [1, 1]", "[evaluate] seed must be one or more different seeds"),
    "candidates": (MAZE + "evaluate.n_candidates = 4294967295", "must be at most 16777216, got 4294967295"),
    "temperature": (HOPPER + "evaluate.temperature = -1.0",
                    "[evaluate] temperature must be finite and at least 0"),
    "type": (MAZE + 'evaluate.dtype = "int8"',
             "[evaluate] unknown dtype 'int8'; use one of auto, fp32, bf16"),
    "a GPU's type": (MAZE + 'evaluate.dtype = "tf32"', "[evaluate] unknown dtype 'tf32'"),
    "preset": (MAZE + 'evaluate.config = "fastest"', "[evaluate] config is 'fastest'; give"),
    "clip": (MAZE + WALK + "evaluate.weight_clip = [1.0, 0.1]",
             "[evaluate] weight_clip needs 0 < low < high"),
    "steps": (MAZE + 'evaluate.sampler = "ddim"\nevaluate.sampler_steps = 99',
              "sampler_steps must be in 1..15"),
    "leaves": (MAZE + WALK + TREE + "7",
               "[evaluate] 16 candidates are no whole number of roots with 7 leaves"),
    "ranker": (MAZE + EXPECTED + RANKER, "ranking='ranker' needs a ranker"),
    # what a training will give
    "steps to train": (HOPPER + 'train.num_steps = 5\nevaluate.sampler = "ddim"\nevaluate.sampler_steps = 6',
                       "sampler_steps must be in 1..5"),
    "ranker to train": (HOPPER + EXPECTED + RANKER, "ranking='ranker' needs a ranker"),
    "reading to train": (HOPPER + EXPECTED + 'evaluate.ranking = "read"',
                         "needs a network trained with --read-share"),
    "guidance of no family": (HOPPER + 'evaluate.guidance = "expectile:0.7"',
                              "trained with one weight function"),
    "guidance outside": (HOPPER + FAMILY + 'evaluate.guidance = "expectile:0.99"',
                         "is not in what this policy was"),
    "unknown rank": (HOPPER + "rank.state = 1", "[rank] unknown setting 'state'; did you mean states?"),
    "rank": (HOPPER + "rank.states = 0", "[rank] states must be at least 1, got 0"),
    "rank and leaves": (HOPPER + TREE + "4\nrank.candidates = 10",
                        "[rank] 10 candidates are no whole number"),
    # toys
    "unknown toy": ('toy.name = "donut"', "[toy] unknown toy data 'donut'; use one of spiral"),
    "toy without a name": ("toy.seed = 1", "[toy] unknown toy data None"),
    "toy's setting": (TOY + "toy.step = 3", "[toy] unknown setting 'step'; did you mean steps"),
    "toy's steps": (TOY + 'toy.num_steps = 5\ntoy.sampler = "ddim"\ntoy.sampler_steps = 6',
                    "must be in 1..5"),
    "toy's samples": (TOY + "toy.samples = 4000000000", "[toy] samples must be at most 1000000"),
    # resources
    "run": (TOY + "run.cores = 1", "[run] unknown setting 'cores'; use one of cpus"),
    "no CPU": (TOY + "run.cpus = 0", "[run] cpus must be finite and above 0, got 0"),
    "one CPU and a half": (TOY + "run.cpus = 1.5",
                           "[run] cpus must be a share from 0.001 on or a whole number"),
    "GPUs": (TOY + "run.gpus = -1", "[run] gpus must be finite and at least 0"),
    "save_every": (TOY + "run.save_every = 1e30", "[run] save_every must be a whole number, got 1e+30"),
    "threads": (TOY + "run.threads = 1_000_000", "[run] threads must be at most"),
    # the report
    "metric": (TOY + '[[report]]\nrows = "name"\nmetrics = ["speed"]', "unknown metric 'speed'"),
    "metrics": (TOY + '[[report]]\nrows = "name"\nmetrics = 3',
                "[[report]] metrics must be a list of names, got 3"),
    "no rows": (TOY + '[[report]]\ncolumns = "name"', "[[report]] needs rows"),
    "rows": (TOY + '[[report]]\nrows = "weights"',
             "[[report]] names 'weights', no axis or setting of this sweep"),
    "where": (TOY + '[[report]]\nrows = "name"\nwhere = 3',
              "[[report]] where must be names with values, got 3"),
    "where in parts": (HOPPER + '[[report]]\nrows = "task"\nwhere.train.seed = 3',
                       "[[report]] names 'train'"),
}


OPTIONS = {
    "more CPUs than there are": (TOY + "run.cpus = 3", ["--cpus", 2], "a cell asks for 3 CPU(s) and no"),
    "no CPUs": (TOY, ["--cpus", 0], "--cpus must be at least 1, got 0"),
    "too many CPUs": (TOY, ["--cpus", 10**12], "--cpus must be at most"),
}
OVERRIDES = {
    "no value": ("nonsense", "--set nonsense: write it as NAME=VALUE"),
    "no setting": ("seed=1", "--set seed: no such setting; use"),
    "a date": ("train.seed=1979-05-27", "--set: train.seed is a date or a time"),
    "nan": ("train.discount=nan", "--set: train.discount is nan"),
    "a table": ("train.seed={a = 1}", "[train] seed must be a whole number"),
    "too many cells": (f"train.seed={list(range(2001))}", "10,005 cells, and a sweep has at most 10,000"),
}
FINE = {
    "what will be trained": HOPPER + EXPECTED + 'evaluate.ranking = "read"\ntrain.read_share = 0.2',
    "a ranker to train": HOPPER + EXPECTED + RANKER + '\ntrain.ranker_steps = 9\nrank.states = 3',
    "a family": HOPPER + FAMILY + EXPECTED + 'grid.evaluate.guidance = ["expectile:0.7", "exponential:3"]',
    "the critic": HOPPER + 'evaluate.select = "max_q"\nevaluate.dtype = "bf16"\nevaluate.seed = [0, 1]',
    "a GPU's type on a GPU": MAZE + 'evaluate.dtype = "tf32"\nrun.gpus = 0.25',
    "a preset": MAZE + 'evaluate.config = "fast"\nevaluate.workers = 2',
    "another task of its sizes": 'task = "antmaze-large-play-v2"\npolicy = "antmaze-umaze-v2"',
    "shares": TOY + "run.cpus = 0.5\nrun.retries = 0",
    "a report": HOPPER + "grid.train.seed = [0, 1]\n" + VIEW,
}


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch):
    """No data may be loaded and no policy hashed before a plan is checked."""
    for name in ("hash_data", "hash_policy"):
        monkeypatch.setattr(store, name, lambda *found, **more: pytest.fail(f"{found} was read"))


def refused(folder, text, *words, options=()):
    (folder / "plan.toml").write_text(text)
    done = run_cli("sweep", "plan.toml", "--out", "out", *options, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert all(word in done.stderr for word in words), done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plan_is_refused_before_anything_starts(name, tmp_path):
    text, words = BAD[name]
    refused(tmp_path, text, "plan.toml: ", words)


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_bad_override_is_refused(name, tmp_path):
    override, words = OVERRIDES[name]
    refused(tmp_path, HOPPER + "grid.evaluate.seed = [0, 1, 2, 3, 4]", words, options=["--set", override])


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be(name, tmp_path):
    text, options, words = OPTIONS[name]
    refused(tmp_path, text, words, options=options)


LARGE = "train.hidden_dim = 16384\ntrain.num_blocks = 256"
MACHINE = {
    "memory": (HOPPER + LARGE, "this training would take 11,374.4 GB of memory and"),
    "reward": (HOPPER + "train.min_travel = 1e9", "training on hopper-medium-v2: min_travel=1e+09: in none"),
    "GPU": (TOY + "run.gpus = 1", "device 'cuda': torch sees no CUDA device here"),
}


@pytest.mark.parametrize("name", MACHINE)
def test_what_this_machine_cannot_do_is_refused(name, tmp_path, monkeypatch):
    text, words = MACHINE[name]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(store, "hash_data", lambda *found, trust: "data")
    monkeypatch.setattr(cells, "load_for", lambda *found, trust: small_data())
    refused(tmp_path, text, words)


def test_a_folder_of_another_sweep_stays_right(tmp_path):
    """What is done is known by its settings; a folder in use is refused and nothing of it changes."""
    resolved = []
    for name, seeds in (("first", "[0, 1]"), ("second", "[1, 2]")):
        (tmp_path / f"{name}.toml").write_text(f"{TOY}grid.toy.seed = {seeds}")
        plan = read_plan(tmp_path / f"{name}.toml")
        resolved.append(cells.resolve(plan, store.hash_data, store.hash_policy))
    out = store.Store(tmp_path / "out")
    out.begin(read_plan(tmp_path / "first.toml"), resolved[0])
    for cell in resolved[0]:
        found = {"result": {"distances": {"guided_to_target": 1.0}}, "versions": {}, "seconds": 1.0}
        write_json(out.cell(cell.key), cell.to_json() | found)
    assert out.pending(resolved[1]) == ([], resolved[1][1:])
    with store.locked(out.folder / "lock"):
        before = (out.folder / "sweep.json").read_bytes()
        done = run_cli("sweep", "second.toml", "--out", "out", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{out.folder}: another sweep runs there" in done.stderr
        assert (out.folder / "sweep.json").read_bytes() == before


@pytest.mark.parametrize("name", FINE)
def test_odd_plans_that_are_fine(name, tmp_path):
    (tmp_path / "plan.toml").write_text(FINE[name])
    plan = read_plan(tmp_path / "plan.toml")
    assert cells.resolve(plan, lambda task, source: source, lambda name: name)
    RunSettings(**plan.run)
