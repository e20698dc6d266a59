"""Checkpoints that are damaged, strange or cut short; SWG-JAX's files likewise."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap

import msgpack
import numpy as np
import pytest
import torch
from conftest import make_network
from flax_files import golden, nest, pack_flax
from safetensors.torch import load_file, save_file

from swg_fast import NoiseSchedule, TwinQ, UsageError, ValueNetwork, load_policy
from swg_fast.common.atomic_files import sha256
from swg_fast.policy.checkpoint import CARD, WEIGHTS, load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.swg_jax_import import import_directory
from tests.robustness.damage import card_with

GIGABYTE_IN_KB = 10**6


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(
        tmp_path / "c",
        Model(make_network(5, 3, 16), NoiseSchedule.cosine(7), TwinQ(5, 3, 16), ValueNetwork(5, 16)),
    )


def tensors_with(change):
    """Changes the tensors and updates the card's hash."""

    def apply(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        card_with("weights_sha256", sha256(folder / WEIGHTS))(folder)

    return apply


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def pipe(name):
    def make(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


BAD = {
    "width": (card_with("network", "hidden_dim", 10**7), "at most"),
    "blocks": (card_with("network", "num_blocks", 10**8), "at most"),
    "wider": (card_with("network", "hidden_dim", 4096), "has shape"),
    "more blocks": (card_with("network", "num_blocks", 200), "layers"),
    "states": (card_with("network", "state_dim", -1), "at least"),
    "half a width": (card_with("network", "hidden_dim", 16.0), "whole number"),
    "a true width": (card_with("network", "hidden_dim", True), "whole number"),
    "a named width": (card_with("network", "hidden_dim", "16"), "whole"),
    "head": (card_with("network", "weight_head", "late"), "weight head"),
    "dropout": (card_with("network", "dropout", 7), "dropout"),
    "list as network": (card_with("network", [1]), "network: input should be an object"),
    "no network": (card_with("network", None), "network: input should be an object"),
    "an unknown size": (card_with("network", "depth", 3), "incomplete"),
    "critic's width": (card_with("critic", "hidden_dim", 10**9), "at most"),
    "critic of another task": (card_with("critic", "state_dim", 6), "different tasks"),
    "value of another task": (card_with("value", "state_dim", 6), "different tasks"),
    "no critic": (card_with("critic", None), "layers"),
    "a numbered schedule": (card_with("schedule", 3), "string"),
    "candidates": (card_with("sampling", "n_candidates", 10**12), "at most"),
    "half a candidate": (card_with("sampling", "n_candidates", 2.5), "whole number"),
    "hot": (card_with("sampling", "temperature", "hot"), "number"),
    "selection": (card_with("sampling", "select", ["max_weight"]), "selection"),
    "sampling": (card_with("sampling", [16]), "sampling: input should be an object"),
    "unknown sampling": (card_with("sampling", "speed", 1), "speed"),
    "format": (card_with("format", "1"), "format 1"),
    "a list": (write(CARD, b"[1]"), "format 1"),
    "no width": (card_with("network", "hidden_dim", 0), "network: hidden_dim must be at least 1"),
    "no embedding": (card_with("network", "time_embed_dim", 0), "network: time_embed_dim must be at least 1"),
    "a numbered task": (card_with("task", 7), "task: input should be a valid string, got 7"),
    "a training that is a number": (card_with("training", 3), "training: input should be an object, got 3"),
    "a text for the steps": (card_with("training", {"held_out_losses": {"a": "b"}}), "held_out_losses.a"),
    "keys that are one text": (card_with("observation_keys", "a,b"), "observation_keys"),
    "beyond 64 bits": (write(CARD, b'{"format": 1' + b"0" * 400 + b"}"), "beyond 64 bits"),
    "beyond a float": (write(CARD, b'{"format": 1e999}'), "1e999 is not a number"),
    "nested": (write(CARD, b"[" * 10**6), "nested too deeply"),
    "no JSON": (write(CARD, b"{"), "not valid JSON"),
    "NaN in JSON": (write(CARD, b'{"format": NaN}'), "not valid JSON"),
    "many digits": (write(CARD, b'{"format": ' + b"9" * 10**5 + b"}"), "not valid JSON"),
    "bytes": (write(CARD, b"\xff\xfe"), "not valid JSON"),
    "a pipe as card": (pipe(CARD), "no checkpoint"),
    "a pipe as weights": (pipe(WEIGHTS), "not readable"),
    "empty weights": (write(WEIGHTS, b""), "not the weights"),
    "other weights": (write(WEIGHTS, b"\x08" + b"\0" * 99), "not the weights"),
    "three million betas": (
        tensors_with(lambda t: t.update(betas=torch.full((3_000_000,), 0.1))),
        "betas have shape",
    ),
    "no betas": (tensors_with(lambda t: t.pop("betas")), "betas have shape"),
    "betas of 1": (tensors_with(lambda t: t["betas"].fill_(1)), "beta"),
    "a tensor more": (tensors_with(lambda t: t.update(extra=torch.zeros(2))), "extra"),
    "whole numbers": (
        tensors_with(lambda t: t.update({"network.input.bias": torch.zeros(16, dtype=torch.int32)})),
        "int32",
    ),
    "infinity": (tensors_with(lambda t: t["critic.weights.0"].fill_(torch.inf)), "NaN or infinity"),
    "beyond float32": (
        tensors_with(
            lambda t: t.update({"network.input.bias": torch.full((16,), 1e300, dtype=torch.float64)})
        ),
        "infinity",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoint(name, folder):
    change, word = BAD[name]
    change(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError) as error:
        load_checkpoint(folder)
    assert word in str(error.value) and "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIGABYTE_IN_KB / 4


@pytest.mark.parametrize("name", ["nothing-here", "~nobody-of-that-name/p", "x" * 300, "a\0b", "", 7, None])
def test_no_checkpoint(name):
    with pytest.raises(UsageError) as error:
        load_policy(name)
    assert "\n" not in str(error.value)


def test_weights_without_a_hash_load(folder):
    """Cards of versions that stored no hash."""
    card = json.loads((folder / CARD).read_text())
    del card["weights_sha256"]
    (folder / CARD).write_text(json.dumps(card))
    assert load_checkpoint(folder).critic is not None


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(3)
    load_checkpoint(folder)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


def test_half_precision(tmp_path):
    network = make_network(5, 3, 64)
    folders = [
        save_checkpoint(tmp_path / dtype, Model(network, NoiseSchedule.vp(15)), dtype=dtype)
        for dtype in ("fp32", "fp16")
    ]
    sizes = [(folder / WEIGHTS).stat().st_size for folder in folders]
    assert sizes[1] < 0.56 * sizes[0]
    loaded = load_checkpoint(folders[1])
    assert loaded.card["stored"] == "fp16" and loaded.schedule.betas.dtype == torch.float64
    for name, tensor in loaded.network.state_dict().items():
        assert tensor.dtype == torch.float32 and tensor.requires_grad is False
        assert torch.allclose(tensor, network.state_dict()[name], rtol=2**-10, atol=1e-7)
    assert all(p.requires_grad for p in loaded.network.parameters())
    with torch.no_grad():
        network.input.bias[0] = 1e6
    with pytest.raises(UsageError, match="beyond fp16"):
        save_checkpoint(tmp_path / "fp16", Model(network, NoiseSchedule.vp(15)), dtype="fp16")
    assert torch.equal(
        load_checkpoint(folders[1]).network.input.bias, loaded.network.input.bias
    )  # the old one stays


CUT_SHORT = textwrap.dedent("""
    import os, sys
    import torch
    from swg_fast import NoiseSchedule, ScoreNetwork
    from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
    from swg_fast.policy.model import Model

    torch.set_num_threads(1)
    folder = sys.argv[1]
    def policy(seed):
        torch.manual_seed(seed)
        return Model(ScoreNetwork(3, 2, 8, 2), NoiseSchedule.vp(3), card={"seed": seed})
    old, new = policy(1), policy(2)
    CALLS = ("replace", "fsync", "unlink")
    seen = set()
    for fresh in (False, True):
        for last in range(1, 9):
            here = f"{folder}/{fresh}-{last}"
            if not fresh:
                save_checkpoint(here, old)
            child = os.fork()
            if not child:
                left = [last]
                def dying(function):
                    def call(*arguments, **keywords):
                        left[0] -= 1
                        if not left[0]:
                            os._exit(137)  # as kill -9: nothing is cleaned up
                        return function(*arguments, **keywords)
                    return call
                for name in CALLS:
                    setattr(os, name, dying(getattr(os, name)))
                save_checkpoint(here, new)
                os._exit(0)
            os.waitpid(child, 0)
            try:
                found = load_checkpoint(here)
            except ValueError as error:
                assert fresh and "no checkpoint" in str(error), (fresh, last, error)
                seen.add("none")
                continue
            seed = found.card["seed"]
            expected = policy(seed).network.state_dict()
            assert all(torch.equal(v, expected[k]) for k, v in found.network.state_dict().items()), last
            seen.add(seed)
            save_checkpoint(here, new)
            assert load_checkpoint(here).card["seed"] == 2
    assert seen == {"none", 1, 2}, seen
""")


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_the_old_or_the_new(tmp_path):
    """At every call that changes a file, over an old checkpoint and in an empty folder."""
    out = subprocess.run([sys.executable, "-c", CUT_SHORT, str(tmp_path)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


def flax_with(*path_and_value):
    *path, last, value = path_and_value
    tree = nest(golden("params/"))
    node = tree
    for name in path:
        node = node[name]
    node[last] = value(node[last]) if callable(value) else value
    return pack_flax(tree)


IN = ("MLPResNet_mod_0", "Dense_0", "kernel")
FLAX = {
    "0-d kernel": (flax_with(*IN, np.float32(1) * np.ones(())), "dimensions"),
    "list": (flax_with(*IN, [[1.0], [2.0, 3.0]]), "list"),
    "text": (flax_with(*IN, "kernel"), "str"),
    "complex": (flax_with(*IN, lambda k: k.astype(complex)), "complex"),
    "integers": (flax_with(*IN, lambda k: k.astype(np.int32)), "int32"),
    "objects": (flax_with(*IN, lambda k: k.astype("S4")), "bytes"),
    "NaN": (flax_with(*IN, lambda k: k * np.nan), "NaN"),
    "beyond float32": (flax_with(*IN, lambda k: k.astype("f8") + 1e300), "infinity"),
    "flat": (flax_with(*IN, lambda k: k[0]), "dimensions"),
    "nothing, but wide": (flax_with(*IN, np.zeros((0, 10**9), "f4")), "shape"),
    "tall": (flax_with(*IN, lambda k: np.zeros((4, k.shape[1]), "f4")), "state_dim"),
    "no frequencies": (flax_with("FourierFeatures_0", {}), "not SWG-JAX actor"),
    "a number": (pack_flax(3), "no tree"),
    "deep": (b"\x91" * 10**5, "not a flax"),
    "text file": (b"no msgpack at all", "not a flax"),
    "empty": (b"", "not a flax"),
    "short": (flax_with(*IN, lambda k: k)[:5000], "not a flax"),
    "another extension": (msgpack.packb({"a": msgpack.ExtType(2, b"x")}), "type 2"),
    "a lie about its shape": (
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((10**9, 9), "float32", b"")))}),
        "not a flax",
    ),
}


@pytest.mark.parametrize("name", FLAX)
def test_bad_swg_jax_file(name, tmp_path):
    content, word = FLAX[name]
    (tmp_path / "actor_params_1.msgpack").write_bytes(content)
    with pytest.raises(UsageError) as error:
        import_directory(tmp_path)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_value_network_of_another_state_size(tmp_path):
    (tmp_path / "actor_params_1.msgpack").write_bytes(pack_flax(nest(golden("params/"))))
    value = nest(golden("value/"))
    layer = value["MLP_0"]
    layer["Dense_0"]["kernel"] = layer["Dense_0"]["kernel"][:5]
    layer["LayerNorm_0"] = {name: array[:5] for name, array in layer["LayerNorm_0"].items()}
    (tmp_path / "value_params_1.msgpack").write_bytes(pack_flax(value))
    with pytest.raises(UsageError, match="states of 5"):
        import_directory(tmp_path)
