"""Checkpoints, bundled policies, and SWG-JAX imports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_network
from flax_files import golden, nest, pack_flax
from safetensors.torch import load_file, save_file

from swg_fast import NoiseSchedule, TwinQ, UsageError, ValueNetwork, load_policy
from swg_fast.common.atomic_files import sha256
from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.sampling import Execution, SamplingConfig, card_entry
from swg_fast.policy.swg_jax_import import import_directory, score_network


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(tmp_path / "c", Model(
        make_network(5, 3), NoiseSchedule.cosine(7), TwinQ(5, 3, 16), ValueNetwork(5, 16),
        {"note": "x", "sampling": {"guidance_scale": 4.0}}))


def test_round_trip(folder):
    a, b = make_network(5, 3), load_checkpoint(folder)
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.network.state_dict()[name])
    assert b.schedule.name == "cosine" and torch.equal(b.schedule.betas, NoiseSchedule.cosine(7).betas)
    assert b.card["note"] == "x" and b.critic is not None and b.value is not None
    assert b.card["sampling"] == card_entry(SamplingConfig(guidance_scale=4.0), Execution())
    assert load_policy(folder).config == SamplingConfig(guidance_scale=4.0)
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "model_card.json"]


@pytest.mark.parametrize("norm", [True, False])
def test_a_value_with_and_without_norm(tmp_path, norm):
    """The card says whether V has a LayerNorm; V of an older card, which does not say, has one."""
    value, states = ValueNetwork(5, 16, norm), torch.randn(7, 5)
    policy = Model(make_network(5, 3), NoiseSchedule.cosine(7), None, value)
    folder = save_checkpoint(tmp_path / "c", policy)
    assert torch.equal(load_checkpoint(folder).value(states), value(states))
    assert torch.allclose(value(1e3 * states), value(2e3 * states), rtol=1e-3) is norm
    card = json.loads((folder / "model_card.json").read_text())
    del card["value"]["norm"]
    (folder / "model_card.json").write_text(json.dumps(card))
    if norm:
        assert torch.equal(load_checkpoint(folder).value(states), value(states))
    else:
        with pytest.raises(UsageError):
            load_checkpoint(folder)


def damage(folder, kind):
    card = json.loads((folder / "model_card.json").read_text())
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if kind == "shape":
        card["network"]["hidden_dim"] = 128
    elif kind == "layers":
        card["network"]["num_blocks"] = 2
    elif kind == "nan":
        tensors["network.input.bias"][0] = float("nan")
        save_file(tensors, weights)
        card["weights_sha256"] = sha256(weights)
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "gone":
        weights.unlink()
    elif kind == "incomplete":
        del card["network"]
    elif kind == "format":
        card["format"] = 99
    (folder / "model_card.json").write_text("{" if kind == "json" else json.dumps(card))


@pytest.mark.parametrize("kind,word", [
    ("shape", "has shape"), ("layers", "other layers"), ("nan", "NaN"), ("truncated", "not the weights"),
    ("gone", "not readable"), ("incomplete", "incomplete"), ("json", "not valid JSON"),
    ("format", "format 1")])
def test_damage_is_named(folder, kind, word):
    damage(folder, kind)
    with pytest.raises(UsageError, match=word) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_unknown_name_lists_the_bundled():
    with pytest.raises(UsageError, match="antmaze-umaze-v2"):
        load_policy("nothing-here")


@pytest.mark.parametrize("name, sizes", [("antmaze-umaze-v2", (29, 8)), ("hopper-medium-v2", (11, 3))])
def test_bundled_policies(name, sizes):
    policy = load_policy(name)
    assert (policy.state_dim, policy.action_dim) == sizes and policy.model.critic is not None
    drawn = policy.sample(torch.zeros(2, sizes[0]), n_candidates=8, select="max_q", seed=0)
    assert torch.isfinite(drawn.actions).all()
    card = load_checkpoint(name).card
    assert {"task", "dataset", "training", "make_it_again"} <= card.keys()


def test_import_of_the_authors_files(tmp_path):
    for kind, prefix in (("actor", "params/"), ("critic", "critic/"), ("value", "value/")):
        sub = tmp_path / "models" / ("actor" if kind == "actor" else "critic")
        sub.mkdir(parents=True, exist_ok=True)
        for step in (1, 20000, 300000):
            path = sub / f"{kind}_params_{step}.msgpack"
            path.write_bytes(pack_flax(nest(golden(prefix))))
    network, critic, value, files = import_directory(tmp_path)
    assert files["actor"] == "actor_params_300000.msgpack"
    assert (critic.state_dim, critic.action_dim) == (29, 8) and value is not None
    direct = score_network(golden("params/"))
    for name, tensor in direct.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_bad_imports(tmp_path):
    with pytest.raises(UsageError, match="no actor_params"):
        import_directory(tmp_path)
    (tmp_path / "actor_params_1.msgpack").write_bytes(b"not msgpack at all")
    with pytest.raises(UsageError, match="msgpack"):
        import_directory(tmp_path)
    with pytest.raises(UsageError, match="not SWG-JAX actor"):
        score_network({"a/b": np.zeros(3)})
    flat = golden("params/")
    flat["MLPResNet_mod_0/Dense_1/bias"] = np.zeros(5, np.float32)
    with pytest.raises(UsageError, match="has shape"):
        score_network(flat)
    del flat["MLPResNet_mod_0/Dense_1/bias"]
    with pytest.raises(UsageError, match="lack"):
        score_network(flat)
