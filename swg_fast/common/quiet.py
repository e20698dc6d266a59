"""Keeps other packages' notices from the user, and explains their errors."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from swg_fast.common.errors import words


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keeps the block's log lines, warnings and below, from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Python-level prints, warnings and log lines of the block from the user."""
    with (unlogged(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
          warnings.catch_warnings()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def silent_descriptors() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to /dev/null, since compiled modules print past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for target, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def standing_in(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Makes ``modules`` importable by their names within the block, and the real ones again after it.

    None makes the import fail as for a package that is not installed.
    """
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def explain(error: BaseException) -> str:
    """An exception's whole message on one line; where it has none, its type and where it was raised."""
    said = words(error)
    if said:
        return said
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" in {Path(frame.filename).name}, line {frame.lineno}: {frame.line}" for frame in last)
    return type(error).__name__ + where
