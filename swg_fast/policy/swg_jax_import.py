"""SWG-JAX checkpoints: flax parameter trees and the authors' msgpack files -> our networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError, reason
from swg_fast.common.meta_modules import shapes_only
from swg_fast.common.optional_packages import need
from swg_fast.method.networks import ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.policy.model import check_fit

Network = TypeVar("Network", bound=nn.Module)
FLOATS = ("float16", "float32", "float64")
Tree = Mapping[str, Any]  # 'a/b/c' -> array
# An entry that each kind of network has, and its prefix, such as "params/", is the name of its tree.
MARKERS = {"actor": "FourierFeatures_0/kernel", "critic": "VmapQ_Model_0/MLP_0/Dense_0/kernel",
           "value": "OutputVDense/kernel"}


def score_network(params: Tree, name: str | None = None) -> ScoreNetwork:
    """A `ScoreNetwork` from the parameters of SWG-JAX's actor, or from those below ``name`` where there are
    several; its shape is read off them. ``MLPResNet_mod_0`` gives the ``early`` head, ``MLPResNet_0`` the
    ``joint`` one. Raises `UsageError` where parameters are missing or of other shapes."""
    tree = _below(params, "actor", name)
    early = any(key.startswith("MLPResNet_mod_0/") for key in tree)
    trunk = "MLPResNet_mod_0" if early else "MLPResNet_0"
    blocks = len({key.split("/")[1] for key in tree if key.startswith(f"{trunk}/MLPResNetBlock_")})
    frequencies = _get(tree, "FourierFeatures_0/kernel", 2)
    kernel_in, kernel_out = (_get(tree, f"{trunk}/Dense_{i}/kernel", 2) for i in (0, 1))
    actions = kernel_out.shape[1] - (0 if early else 1)
    time_dim = 2 * frequencies.shape[0]
    network = _build(tree, ScoreNetwork, {
        "state_dim": kernel_in.shape[0] - 2 * time_dim - actions - 1, "action_dim": actions,
        "hidden_dim": kernel_in.shape[1], "num_blocks": blocks,
        "weight_head": "early" if early else "joint", "time_embed_dim": time_dim, "dropout": 0.0})
    with torch.no_grad():
        _copy(network.time_features.frequencies, frequencies[:, 0], "FourierFeatures_0/kernel")
    _dense(network.time_mlp[0], tree, "MLP_0/Dense_0")
    _dense(network.time_mlp[2], tree, "MLP_0/Dense_1")
    _dense(network.input, tree, f"{trunk}/Dense_0")
    _dense(network.output, tree, f"{trunk}/Dense_1")
    for i, block in enumerate(network.blocks):
        name = f"{trunk}/MLPResNetBlock_{i}"
        _norm(block.norm, tree, f"{name}/LayerNorm_0")
        _dense(block.up, tree, f"{name}/Dense_0")
        _dense(block.down, tree, f"{name}/Dense_1")
    if early:
        _dense(network.weight_hidden, tree, f"{trunk}/MLP_0/Dense_0")
        _dense(network.weight_output, tree, f"{trunk}/MLP_0/Dense_1")
    return network.eval()


def critic(params: Tree, name: str | None = None) -> TwinQ:
    """A `TwinQ` from the parameters of SWG-JAX's vmapped Q ensemble."""
    tree = _below(params, "critic", name)
    layers = ("MLP_0/Dense_0", "MLP_0/Dense_1", "Dense_0")
    kernels = [_get(tree, f"VmapQ_Model_0/{layer}/kernel", 3) for layer in layers]
    # The split of the input is the caller's; an action has at least one number.
    network = _build(tree, TwinQ, {"state_dim": kernels[0].shape[1] - 1, "action_dim": 1,
                                   "hidden_dim": kernels[1].shape[2]})
    with torch.no_grad():
        for i, layer in enumerate(layers):
            _copy(network.weights[i], kernels[i], f"{layer}/kernel")
            _copy(network.biases[i], _get(tree, f"VmapQ_Model_0/{layer}/bias", 2)[:, None], layer)
    return network.eval()


def value(params: Tree, name: str | None = None) -> ValueNetwork:
    """A `ValueNetwork` from the parameters of SWG-JAX's value model."""
    tree = _below(params, "value", name)
    kernel = _get(tree, "MLP_0/Dense_0/kernel", 2)
    network = _build(tree, ValueNetwork, {"state_dim": kernel.shape[0], "hidden_dim": kernel.shape[1]})
    _norm(network.norm, tree, "MLP_0/LayerNorm_0")
    for index, name in ((0, "MLP_0/Dense_0"), (2, "MLP_0/Dense_1"), (4, "OutputVDense")):
        _dense(network.layers[index], tree, name)
    return network.eval()


def read_msgpack(path: str | Path) -> dict[str, np.ndarray]:
    """A flax ``to_bytes`` file as a flat tree, ``a/b/c`` -> array."""
    msgpack = need("msgpack", "reading SWG-JAX's msgpack files")
    path = user_path(path)
    if not path.is_file():
        raise UsageError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}; give the "
                         "file that SWG-JAX saved")
    try:
        nested = msgpack.unpackb(path.read_bytes(), ext_hook=_unpack_array, raw=False,
                                 strict_map_key=False)
        if not isinstance(nested, Mapping):
            raise TypeError(f"holds {type(nested).__name__}, no tree")
        return dict(_flatten(nested))
    except Exception as error:  # msgpack has many; all mean the same here
        raise UsageError(f"{path}: not a flax msgpack file ({reason(error)}); save it again with SWG-JAX"
                         ) from error


def import_directory(directory: str | Path, tree: str | None = None) -> tuple[
        ScoreNetwork, TwinQ | None, ValueNetwork | None, dict[str, str]]:
    """The newest actor below ``directory`` and, if there, critic and value, with the files used. ``tree`` is
    the name of the tree to take from a file that has several of one kind.

    The authors write ``actor_params_STEP.msgpack`` and the like into ``models/actor`` and
    ``models/critic``; any arrangement below ``directory`` will do.
    """
    directory = user_path(directory)
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such folder; give the one that SWG-JAX saved its models in")
    found = {kind: _newest(directory, f"{kind}_params_*.msgpack") for kind in MARKERS}
    if found["actor"] is None:
        raise UsageError(f"{directory}: no actor_params_*.msgpack below it; give the folder that "
                         "SWG-JAX saved its models in")
    held = {kind: read_msgpack(path) for kind, path in found.items() if path is not None}
    names = sorted({name for kind, params in held.items() for name in _trees(params, kind)})
    if names and tree is not None and not any(_is_called(name, tree) for name in names):
        raise UsageError(f"--tree {tree}: the files have {', '.join(names)}; name one of these")
    network = score_network(held["actor"], tree)
    q = critic(held["critic"], tree) if "critic" in held else None
    v = value(held["value"], tree) if "value" in held else None
    if q is not None:  # one of both together was an action
        q.state_dim, q.action_dim = q.state_dim + 1 - network.action_dim, network.action_dim
    parts = {"network": network, "critic": q, "value": v}
    check_fit([(name, part) for name, part in parts.items() if part is not None], {})
    return network, q, v, {k: str(p.name) for k, p in found.items() if p is not None}


def _newest(directory: Path, pattern: str) -> Path | None:
    def step(path: Path) -> tuple[int, str]:
        digits = "".join(filter(str.isdigit, path.stem.rsplit("_", 1)[-1]))
        return int(digits or -1), path.name

    return max(directory.rglob(pattern), key=step, default=None)


def _unpack_array(code: int, data: bytes) -> Any:
    """flax's extension types: 1 is an array, 3 a numpy scalar, both (shape, dtype, bytes)."""
    if code not in (1, 3):
        raise UsageError(f"a value of flax extension type {code}; arrays alone are expected")
    shape, dtype, buffer = need("msgpack", "flax's arrays").unpackb(data, raw=False)
    if dtype not in FLOATS:
        raise UsageError(f"an array of {dtype!r}; {', '.join(FLOATS)} are expected")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Any:
    for key, item in tree.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", item


def _trees(params: Tree, kind: str) -> list[str]:
    """The names of the trees of this kind: what stands before its marker, "." where nothing does."""
    marker = MARKERS[kind]
    return [key[: -len(marker)].rstrip("/") or "." for key in params
            if key.endswith(f"/{marker}") or key == marker]


def _is_called(name: str, asked: str) -> bool:
    return name == asked or name.startswith(f"{asked}/")  # flax has the rest itself: target/params


def _below(params: Tree, kind: str, asked: str | None) -> dict[str, Any]:
    """``params`` of one tree, without the prefix ('params/', say) that is its name: the only one, or the one
    that is ``asked`` for."""
    names = _trees(params, kind)
    chosen = [name for name in names if len(names) == 1 or asked is not None and _is_called(name, asked)]
    if len(chosen) == 1:
        prefix = "" if chosen[0] == "." else f"{chosen[0]}/"
        return {k[len(prefix):]: v for k, v in params.items() if k.startswith(prefix)}
    if names:
        raise UsageError(f"{len(names)} trees of {kind} parameters: {', '.join(names)}; choose one with "
                         "--tree NAME")
    raise UsageError(f"not SWG-JAX {kind} parameters: no '{MARKERS[kind]}' among "
                     f"{len(params)} entries (first: {next(iter(params), 'none')!r})")


def _build(tree: Tree, kind: type[Network], sizes: dict[str, Any]) -> Network:
    """A network of these sizes, which are read off a file: only where the file holds about as much."""
    with shapes_only():
        needed = sum(p.numel() for p in kind(**sizes).parameters())
    held = sum(int(getattr(array, "size", 0)) for array in tree.values())
    if needed > 2 * held:
        raise UsageError(f"flax parameters: {held:,} numbers, and a network of these sizes has {needed:,}; "
                         "the file is incomplete")
    return kind(**sizes)


def _get(tree: Tree, name: str, dims: int) -> np.ndarray:
    if name not in tree:
        raise UsageError(f"flax parameters lack {name!r}; the checkpoint is of another architecture")
    given = tree[name]
    if not hasattr(given, "__array__"):
        raise UsageError(f"flax parameter {name!r} is {type(given).__name__}, expected an array")
    array = np.asarray(given)
    if array.dtype.kind != "f" or array.ndim != dims or not array.size:
        raise UsageError(f"flax parameter {name!r} is {array.dtype} of shape {list(array.shape)}, expected "
                         f"floating point with {dims} dimensions; the checkpoint is of another architecture")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"flax parameter {name!r} has NaN or infinity in float32; train it again")
    return array


def _copy(target: torch.Tensor, source: np.ndarray, name: str) -> None:
    if tuple(target.shape) != source.shape:
        raise UsageError(f"flax parameter {name!r} has shape {list(source.shape)}, expected "
                         f"{list(target.shape)}; the checkpoint is of another architecture")
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(source)))


def _dense(layer: Any, tree: Tree, name: str) -> None:
    _copy(layer.weight, _get(tree, f"{name}/kernel", 2).T, f"{name}/kernel")
    _copy(layer.bias, _get(tree, f"{name}/bias", 1), f"{name}/bias")


def _norm(layer: Any, tree: Tree, name: str) -> None:
    _copy(layer.weight, _get(tree, f"{name}/scale", 1), f"{name}/scale")
    _copy(layer.bias, _get(tree, f"{name}/bias", 1), f"{name}/bias")
