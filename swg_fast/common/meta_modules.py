"""Networks of any size that take no memory: only the names and shapes of their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _NothingDrawn(TorchFunctionMode):
    """Skips the initialisation of parameters. On the meta device it has no effect but takes seconds, since
    its first random number imports torch's compiler."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name == "randn":
            return torch.empty(*args, device="meta")
        if name.endswith("_") and not name.endswith("__"):  # in place: shapes stay
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules made within have parameters on torch's meta device."""
    with torch.device("meta"), _NothingDrawn():
        yield
