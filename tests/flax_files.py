"""SWG-JAX's files, as flax writes them, from the golden arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from conftest import DATA


def pack_flax(tree: Any) -> bytes:
    """The bytes of flax.serialization.to_bytes for a nested dict of arrays, which may be of any type."""

    def default(array: Any) -> msgpack.ExtType:
        body = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
        return msgpack.ExtType(1, body)

    return msgpack.packb(tree, default=default, use_bin_type=True, strict_types=True)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """'a/b/c' -> array as a tree."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def golden(prefix: str) -> dict[str, np.ndarray]:
    """The golden arrays whose name begins with ``prefix``, without it."""
    arrays = np.load(DATA / "golden" / "early_a8_s29.npz")
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
