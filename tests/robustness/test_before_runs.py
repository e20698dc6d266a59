"""What is said or refused before a training or a search begins, rather than found late in it."""

from __future__ import annotations

import errno
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_network
from flax_files import golden, nest, pack_flax
from small_runs import small_data, train

from swg_fast import NoiseSchedule, Policy, UsageError
from swg_fast.cli import ending
from swg_fast.common.atomic_files import write_json
from swg_fast.common.errors import Note
from swg_fast.common.output_paths import check_folder
from swg_fast.policy.swg_jax_import import import_directory
from swg_fast.training import run
from swg_fast.training.history import read_history
from swg_fast.training.prepare import default_folder

DATA = small_data()
ONE = replace(DATA, episodes=DATA.episodes * 0)
MOVING = replace(DATA, observations=DATA.observations * (DATA.episodes == 0)[:, None])  # in one episode only
HELD_OUT = {
    "one episode": (ONE, {"held_out": 0.2}, "held_out=0.2: the run will log no loss of held-out episodes"),
    "one episode, by default": (ONE, {}, "the data are one episode"),
    "none that travels": (MOVING, {"held_out": 0.1, "min_travel": 0.5, "seed": 1},
                          "no diffusion loss of held-out episodes, in none of which the body travels"),
    "one episode, none asked for": (ONE, {"held_out": 0.0}, None),
    "many": (DATA, {"held_out": 0.1}, None),
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_validation_without_episodes_is_said_first(name, tmp_path, monkeypatch):
    data, changes, words = HELD_OUT[name]
    monkeypatch.setattr(run, "claimed", None)  # nothing of the folder is touched before
    with warnings.catch_warnings(record=True) as said, pytest.raises(TypeError):
        warnings.simplefilter("always")
        train(data, tmp_path / "r", changes=changes)
    notes = [str(one.message) for one in said if one.category is Note]
    assert len(notes) == (words is not None)
    assert all(words in one and "; " in one and "\n" not in one for one in notes)


LINE = '{"phase": "critic", "step": 20}\n'
LINES = {"none": ("", 0), "good": (LINE, 0), "empty lines": (f"\n{LINE}\n\n", 0),
         "cut short": ("{\n" + LINE, 1), "two": ('{"step": 1}\n[1]\n' + LINE, 2),
         "being written": (LINE + '{"phase": "cri', 0)}


@pytest.mark.parametrize("name", LINES)
def test_lines_of_a_history_that_are_skipped_are_counted_once(name, tmp_path):
    text, count = LINES[name]
    (tmp_path / "h.jsonl").write_text(text)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            read_history(tmp_path / "h.jsonl")
    assert [str(one.message).partition(" line")[0] for one in said] == (
        [f"{tmp_path / 'h.jsonl'}: skipped {count}"] if count else [])


def test_the_command_line_prints_a_note_in_one_line():
    assert ending._in_one_line(Note("a cause"), Note, "file.py", 3) == "note: a cause\n"
    assert "file.py:3" in ending._in_one_line(UserWarning("another's"), UserWarning, "file.py", 3)


FOLDERS = {
    "a plain task": ("hopper-medium-v2", (), "hopper-medium-v2"),
    "separators": ("minari:D4RL/antmaze/umaze-v1", (), "minari:D4RL-antmaze-umaze-v1"),
    "a run of before": ("minari:a/b-v0", ("minari:a/b-v0",), "minari:a/b-v0"),
    "both": ("minari:a/b-v0", ("minari:a/b-v0", "minari:a-b-v0"), "minari:a-b-v0"),
    "upwards": ("minari:../../x-v0", (), "minari:..-..-x-v0"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_default_folder_is_one_below_runs(name, tmp_path, monkeypatch):
    task, there, folder = FOLDERS[name]
    monkeypatch.chdir(tmp_path)
    for one in there:
        (tmp_path / "runs" / one).mkdir(parents=True)
        write_json(tmp_path / "runs" / one / "run.json", {})
    assert default_folder(task) == Path("runs") / folder


READ_ONLY = {"itself": ("", "r"), "the one above": ("", "."), "its policy": ("policy", "r/policy"),
             "its states": ("states", "r/states"), "its logs": ("logs", "r/logs")}


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_read_only_folder_is_found_before_training(name, tmp_path, monkeypatch):
    """Permissions do not hold root back, so the file system's answer stands in for them."""
    part, closed = READ_ONLY[name]
    if name != "the one above":
        (tmp_path / "r" / part).mkdir(parents=True)
    honest = tempfile.mkdtemp

    def refusing(*arguments, dir, **more):
        if Path(dir) == tmp_path / closed:
            raise OSError(errno.EROFS, "Read-only file system")
        return honest(*arguments, dir=dir, **more)

    monkeypatch.setattr(tempfile, "mkdtemp", refusing)
    monkeypatch.setattr(run, "_train", None)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="(?i)read-only file system") as error:
        train(DATA, tmp_path / "r")
    assert "\n" not in str(error.value) and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["/proc/self/run", "/proc/run", "/dev/null/run"])
def test_a_folder_that_no_one_can_make(path):
    with pytest.raises(UsageError) as error:
        check_folder(path)
    assert path in str(error.value) and "\n" not in str(error.value)


def flax_folder(folder: Path, **files: list[str]) -> Path:
    """The golden networks, in a file a kind, once below each of the prefixes."""
    folder.mkdir()
    for kind, prefixes in files.items():
        own = golden("params/" if kind == "actor" else f"{kind}/")
        flat = {f"{prefix}{key}": array + i
                for i, prefix in enumerate(prefixes) for key, array in own.items()}
        (folder / f"{kind}_params_1.msgpack").write_bytes(pack_flax(nest(flat)))
    return folder


TWO = ["online/params/", "target/params/"]
TREES = {
    "one": ({"actor": ["params/"]}, None, None), "by its whole name": ({"actor": TWO}, "target/params", 1.0),
    "by its first part": ({"actor": TWO}, "target", 1.0), "the first": ({"actor": TWO}, "online", 0.0),
    "only the critic has two": ({"actor": [""], "critic": TWO}, "target", 0.0),
    "at the top": ({"actor": ["", "target/"]}, ".", 0.0),
    "not chosen": ({"actor": TWO}, None, "2 trees of actor parameters: online/params, target/params; "),
    "misspelt": ({"actor": TWO}, "targets", "--tree targets: the files have online/params, target/params"),
    "misspelt, of one": ({"actor": ["params/"]}, "target", "--tree target: the files have params"),
    "two below it": ({"actor": ["a/b/", "a/c/"]}, "a", "2 trees of actor parameters: a/b, a/c"),
}


@pytest.mark.parametrize("name", TREES)
def test_one_of_several_flax_trees(name, tmp_path):
    files, tree, right = TREES[name]
    folder = flax_folder(tmp_path / "flax", **files)
    if isinstance(right, str):
        with pytest.raises(UsageError) as error:
            import_directory(folder, tree)
        assert right in str(error.value) and "\n" not in str(error.value)
        return
    network, critic, *_ = import_directory(folder, tree)
    own = flax_folder(tmp_path / "own", actor=["params/"])
    plain = import_directory(own)[0].input.bias
    assert np.allclose((network.input.bias - plain).detach(), right or 0.0)
    assert (critic is not None) == ("critic" in files)


SEARCHES = {
    "draws": ({"n_candidates": 2**24, "ranking_draws": 2**16, "select": "expected_weight"}, "1,099,"),
    "candidates": ({"n_candidates": 2**32, "keep_share": 0.5, "ranking_draws": 20}, "would take"),
    "a tree": ({"n_candidates": 2**32, "leaves": 4, "keep_share": 0.5, "ranking_draws": 20}, "would take"),
    "many": ({"n_candidates": 2**20, "ranking_draws": 2**10, "select": "expected_weight"}, None),
    "unranked": ({"n_candidates": 2**32, "ranking_draws": 2**16}, None),
    "not drawn": ({"n_candidates": 2**32, "select": "none"}, None),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_would_not_end_is_refused(name):
    settings, words = SEARCHES[name]
    policy = Policy(make_network(4, 2, 16), NoiseSchedule.vp(5))
    settings = {"ranking_mean": 0.5, "temperature": 1.0} | settings
    if words is None:
        policy.bind(**settings)
        return
    with pytest.raises(UsageError, match=words) as error:
        policy.bind(**settings)
    assert "use fewer" in str(error.value) and "\n" not in str(error.value)
