"""Dictionary observations as one vector, by one rule for datasets and environments.

The leaves of the dictionary, nested ones included, are concatenated in an order that every level
shares: ``achieved_goal``, ``observation``, ``desired_goal``, then the other names alphabetically.
A leaf's name is its path, such as ``desired_goal/kettle``. So the goal is always part of the
vector, unless the keys to take are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError, opened_by
from swg_fast.common.quiet import explain

FIRST = ("achieved_goal", "observation", "desired_goal")
VECTOR = ""  # the name of an observation that is no dictionary


def leaf_names(tree: Any) -> list[str]:
    """The names of the leaves of ``tree`` (a nested mapping, or a nested `gymnasium.spaces.Dict`)."""
    children = _children(tree)
    if children is None:
        return [VECTOR]
    odd = [name for name in children if not isinstance(name, str) or not name or "/" in name]
    if odd:
        raise UsageError(f"a part of the observations is named {odd[0]!r}; rename it to a text without '/'")
    order = [name for name in FIRST if name in children]
    order += sorted(set(children) - set(order))
    return [f"{name}/{rest}" if rest else name
            for name in order for rest in leaf_names(children[name])]


def choose(tree: Any, wanted: Sequence[str] | None, source: str) -> list[str]:
    """The leaves of ``tree`` in ``wanted``, whose names may be of whole branches; None takes all.

    Raises `UsageError` for a name that ``tree`` does not have.
    """
    with opened_by(f"{source}:"):
        names = leaf_names(tree)
    if wanted is None:
        return names
    chosen = []
    for key in wanted:
        if not key:
            raise UsageError(f"{source}: an empty name among the observation keys; name parts, such as "
                             "achieved_goal,observation, or leave the keys out")
        found = [name for name in names if name == key or name.startswith(key + "/")]
        if not found:
            raise UsageError(f"{source}: its observations have no {key!r}; "
                             + (f"they have {', '.join(names)}" if names != [VECTOR]
                                else "they are one vector, so leave the keys out"))
        chosen += found
    return chosen


def leaf(tree: Any, name: str) -> Any:
    """The leaf of that name."""
    for part in name.split("/") if name else []:
        tree = _children(tree)[part]
    return tree


def flatten(tree: Any, names: Sequence[str]) -> np.ndarray:
    """One observation [S] float32 of the leaves ``names`` in their order."""
    return np.concatenate([_vector(tree, name) for name in names])


def _vector(tree: Any, name: str) -> np.ndarray:
    """The leaf of that name as a vector. `UsageError` where it is missing or not of real numbers."""
    label = f"the observation{f' {name!r}' if name else ''}"
    try:
        part = leaf(tree, name)
        array = np.asarray(part)
        if array.dtype.kind not in "buifO" or np.ma.is_masked(part):
            raise TypeError(f"masked {array.dtype}" if np.ma.is_masked(part) else str(array.dtype))
        with np.errstate(over="ignore"):  # infinity, which the caller refuses
            return array.astype(np.float32).ravel()
    except Exception as error:  # of a space's structure that is not the observation's, or of other libraries
        raise UsageError(f"{label} is not the real numbers that its space says ({explain(error)}); mend the "
                         "environment") from error


def flatten_rows(tree: Any, names: Sequence[str]) -> np.ndarray:
    """Observations [N, S] float32, where each leaf holds N rows."""
    parts = [np.asarray(leaf(tree, name), np.float32) for name in names]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def check_spaces(space: Any, names: Sequence[str], source: str) -> None:
    """`UsageError` where a leaf is no vector of numbers: a picture, a choice, a text."""
    from gymnasium.spaces import Box

    for name in names:
        part = leaf(space, name)
        label = f" {name!r}" if name else ""
        if not isinstance(part, Box):
            raise UsageError(f"{source}: its observation{label} is a {type(part).__name__}; "
                             "swg-fast takes vectors of numbers (Box), alone or in dictionaries")
        if len(part.shape) > 1 and part.dtype == np.uint8:
            raise UsageError(f"{source}: its observation{label} is a picture of shape "
                             f"{list(part.shape)}; swg-fast takes states, so use its state-based variant")


def _children(tree: Any) -> Mapping[Any, Any] | None:
    spaces = getattr(tree, "spaces", None)
    if isinstance(spaces, Mapping):  # a Dict space is a mapping too, but its `in` tests members of the space
        return spaces
    return tree if isinstance(tree, Mapping) else None
