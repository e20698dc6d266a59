"""The folder where this package keeps what it compiles and measures on a machine, for its user alone.

The files in it are loaded and run, so a folder or a file that someone else could have written is not used.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

from platformdirs import user_cache_path

from swg_fast.common.errors import note

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """The folder: $SWG_FAST_CACHE, else swg-fast/ in the user's cache folder. It exists, belongs to the user
    and others cannot write to it. Where there is no such folder, it is a temporary one of this process, and a
    warning says why. It is looked up once for each value of the environment variables."""
    return _folder(os.environ.get("SWG_FAST_CACHE"), os.environ.get("XDG_CACHE_HOME"),
                   os.environ.get("HOME"))


@lru_cache
def _folder(own: str | None, xdg: str | None, home: str | None) -> Path:
    try:
        folder = (Path(own) if own else user_cache_path("swg-fast", appauthor=False)).expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not own and folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)  # a folder that the user names may hold other things too
        reason = _reason(folder.stat()) or _open_above(folder)
        if reason is None and not os.access(folder, os.W_OK | os.X_OK):
            reason = "it may not be written to"
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder is known
        reason = getattr(error, "strerror", None) or str(error).rstrip(".").lower()
        folder = Path(own or xdg or "~/.cache/swg-fast")
    if reason is None:
        return folder
    note(f"cache folder {folder} is not used, since {reason}; what is compiled is lost when this "
         "process ends. Set SWG_FAST_CACHE to a folder of yours")
    return private_folder()


@lru_cache
def private_folder() -> Path:
    """A temporary folder of this process alone, removed at its end."""
    return Path(_temporary().name)


@lru_cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="swg-fast-", ignore_cleanup_errors=True)


def _reason(found: os.stat_result) -> str | None:
    """Why a file or folder is not to be trusted; None where it is the user's own."""
    if found.st_uid != os.getuid():
        return "it belongs to another user"
    if found.st_mode & OTHERS:
        return "others may write to it"
    return None


def _open_above(folder: Path) -> str | None:
    """Why others could replace ``folder`` by another one; None where they cannot."""
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"others may write to {parent}"
    return None


def trusted(path: Path) -> bool:
    """Whether ``path`` is a regular file of the user's that others cannot write, with the contents that
    `keep` left."""
    try:
        return hashlib.sha256(_read(path)).hexdigest() == _read(_hash_path(path)).decode("ascii")
    except (OSError, ValueError):
        return False


def keep(built: Path, path: Path) -> None:
    """Moves ``built``, in the same folder, to ``path``, and its hash beside it."""
    with open(built, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    built.chmod(0o700)
    beside = built.with_suffix(".sha256")
    beside.write_text(digest)
    beside.chmod(0o600)
    os.replace(beside, _hash_path(path))
    os.replace(built, path)


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or _reason(found):
            raise ValueError(path)
        return file.read()
