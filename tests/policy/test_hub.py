"""Policies to the hub and back, by a local folder in the hub's place, and by the hub's own client without a
network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from swg_fast import Policy, UsageError, load_policy

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")
REPO = "me/umaze"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in the hub's place, which takes the same patterns of files."""
    place = tmp_path / "hub"

    def send(source, target, patterns):
        names = [path.relative_to(source).as_posix() for path in Path(source).rglob("*") if path.is_file()]
        for name in huggingface_hub.utils.filter_repo_objects(names, allow_patterns=patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(source) / name, target / name)

    class Api:
        def __init__(self, token):
            assert token == "secret"

        def create_repo(self, repo_id, *, private, exist_ok):
            assert (repo_id, private, exist_ok) == (REPO, True, True)

        def upload_folder(self, *, repo_id, folder_path, revision, allow_patterns, commit_message):
            assert (repo_id, revision) == (REPO, "v1")
            send(folder_path, place, allow_patterns)
            return SimpleNamespace(commit_url="https://hub/me/umaze/commit/1")

    def snapshot_download(repo_id, *, revision, cache_dir, token, allow_patterns):
        assert (repo_id, revision, token) == (REPO, "v1", "secret")
        send(place, Path(cache_dir), allow_patterns)
        return cache_dir

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return place


def test_there_and_back_with_a_policy_in_a_sub_folder(hub, tmp_path):
    """The repository may hold anything else: only safetensors and JSON are fetched."""
    policy = load_policy("antmaze-umaze-v2")
    folder = tmp_path / "mine"
    load_policy("hopper-medium-v2").save(folder / "more" / "hopper")
    policy.save(folder)
    (folder / "notes.pkl").write_bytes(b"no")
    address = policy.push_to_hub(REPO, folder=folder, private=True, revision="v1", token="secret")
    assert address == "https://hub/me/umaze/commit/1"
    names = {path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()}
    two = {"model.safetensors", "model_card.json"}
    assert names == two | {f"more/hopper/{name}" for name in two} | {"README.md"}

    (hub / "code.py").write_text("raise SystemExit")
    wanted = {"revision": "v1", "cache_dir": tmp_path / "cache", "token": "secret"}
    back = Policy.from_pretrained(REPO, **wanted)
    assert {path.suffix for path in (tmp_path / "cache").rglob("*.*")} == {".safetensors", ".json"}
    states = np.zeros((2, 29))
    for sampler in ("ddpm", "student"):  # both networks are there
        chosen = {"seed": 0, "n_candidates": 4, "sampler": sampler}
        assert back.sample(states, **chosen).actions.equal(policy.sample(states, **chosen).actions)
    assert back.card["make_it_again"] == policy.card["make_it_again"]
    assert Policy.from_pretrained(REPO, subfolder="more/hopper", **wanted).state_dim == 11


def test_the_card_is_the_hubs(hub):
    policy = load_policy("antmaze-umaze-v2")
    policy.push_to_hub(REPO, license="mit", private=True, revision="v1", token="secret")
    card = huggingface_hub.ModelCard.load(hub / "README.md")
    assert card.data.license == "mit" and card.data.library_name == "swg-fast"
    assert card.data.pipeline_tag == "reinforcement-learning"
    assert card.data.datasets == ["antmaze-umaze-v2"] and card.data.tags[-1] == "antmaze-umaze-v2"
    assert f'Policy.from_pretrained("{REPO}")' in card.text


def test_a_policy_of_no_named_task_has_a_card_too(hub):
    policy = load_policy("antmaze-umaze-v2")
    policy.model.card.update(task=None, dataset="minari:D4RL/antmaze/umaze-v1", licence="cc-by-4.0")
    policy.push_to_hub(REPO, private=True, revision="v1", token="secret")
    data = huggingface_hub.ModelCard.load(hub / "README.md").data
    assert data.license == "cc-by-4.0" and data.datasets == ["minari-D4RL-antmaze-umaze-v1"]
    assert data.tags[-1] == "self-weighted-guidance"


def test_folders_and_bundled_names_need_no_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    policy = Policy.from_pretrained("antmaze-umaze-v2")
    assert Policy.from_pretrained(policy.save(tmp_path / "a" / "b")).state_dim == 29
    assert Policy.from_pretrained(tmp_path / "a", subfolder="b").state_dim == 29
    for ask in (lambda: Policy.from_pretrained(REPO), lambda: policy.push_to_hub(REPO)):
        with pytest.raises(UsageError, match=r"needs huggingface_hub.*pip install 'swg-fast\[hub\]'"):
            ask()


@pytest.mark.parametrize("name", ["umaze", "me/too/long", "me/", "", 3])
def test_a_bad_name_is_refused_before_anything_is_written(name, monkeypatch):
    policy = load_policy("antmaze-umaze-v2")
    monkeypatch.setattr(policy, "save", lambda folder: pytest.fail("saved"))
    with pytest.raises(UsageError, match="^repo_id (is|must be)"):
        policy.push_to_hub(name)


def test_a_folder_that_is_not_there(hub, tmp_path):
    with pytest.raises(UsageError, match="no such folder; give the folder of a policy"):
        load_policy("antmaze-umaze-v2").push_to_hub(REPO, folder=tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("call", ["Policy.from_pretrained('me/umaze')",
                                  "Policy.from_pretrained('antmaze-umaze-v2').push_to_hub('me/umaze')"])
def test_without_a_network_one_line_says_so(call, offline, tmp_path):
    code = f"""
from swg_fast import Policy, UsageError
try:
    {call}
except UsageError as error:
    print(error)
"""
    surroundings = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline,
                              "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("\n") == 1 and "me/umaze: " in out.stdout
    assert out.stdout.endswith("check the name, the network and 'hf auth login', or give a folder\n")
