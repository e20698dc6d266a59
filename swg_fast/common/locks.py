"""Lock files, for work that only one process may do at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from swg_fast.common.errors import UsageError


@contextmanager
def file_lock(path: Path, in_use: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file ``path`` for this process while the block runs. The system releases it even after a
    kill.

    Where another process holds it, waits if ``wait`` is true, else raises `UsageError` with the message
    ``in_use``. Raises OSError where the file cannot be made or locked.
    """
    try:
        lock = FileLock(path).acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise UsageError(in_use) from error
    with lock:
        yield
