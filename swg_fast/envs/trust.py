"""Which code may run because a name or a dataset says so: what is registered, and what the user trusts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swg_fast.common.errors import UsageError

WRAPPERS = "gymnasium.wrappers."
WRITERS = ("RecordVideo",)  # wrappers that write files


def check_module(task: str, trust: Sequence[str]) -> None:
    """`UsageError` where ``task`` is "module:id", which imports the module, and that is not in ``trust``."""
    module, colon, _ = task.partition(":")
    if colon and not {module, task} & set(trust):
        raise UsageError(f"{task} runs the code of the module {module!r}; if you trust it, add "
                         f"--trust {module} (in Python trust=[...])")


def check_spec(spec: Any, source: str, trust: Sequence[str]) -> None:
    """`UsageError` where ``spec``, which comes from a dataset, runs code that is neither registered with
    Gymnasium here nor in ``trust``: a spec can name any function of any module."""
    if spec is None:
        return
    import gymnasium

    registered = {known.entry_point for known in gymnasium.registry.values()
                  if isinstance(known.entry_point, str)}
    wanted = [spec.entry_point, spec.vector_entry_point]
    wanted += [wrapper.entry_point for wrapper in spec.additional_wrappers]
    for point in wanted:
        known = point in registered or (str(point).startswith(WRAPPERS) and not str(point).endswith(WRITERS))
        if not (point is None or known or point in trust):
            raise UsageError(f"{source} asks to run {point}, which no known package registers; if you trust "
                             f"it, add --trust {point} (in Python trust=[...])")
