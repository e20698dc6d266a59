"""Files appear whole or not at all: written under a temporary name, then renamed.

Devices, pipes and links are written through, never replaced. The temporary files of a killed process are
removed when the next one starts.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError

MENDS = {errno.ENOSPC: "make room and run again", errno.EDQUOT: "make room and run again",
         errno.EFBIG: "raise the limit on file sizes (ulimit -f)", errno.ENAMETOOLONG: "shorten it",
         errno.EROFS: "give a path on a disk that can be written to"}
LONGEST = 255  # bytes of a file's name, on nearly every file system
LINKS = 40  # followed at most, as Linux does

_host = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
_count = itertools.count()
_mine: set[str] = set()  # the temporary names in use by this process
_LEFTOVER = re.compile(r"^\..*\.(\d+)-([0-9a-f]{8})-\d+\.part(\.[^.]*)?$")


def user_path(text: str | Path) -> Path:
    """``text`` as a path, ``~`` and ``~name`` filled in; `UsageError` where that cannot be done."""
    if not isinstance(text, str | os.PathLike):
        raise UsageError(f"a path was expected, got {type(text).__name__}")
    if not str(text):
        raise UsageError("an empty path names nothing; give the name of a file or folder")
    if "\0" in str(text):
        raise UsageError(f"{str(text)!r}: a path cannot hold a null character")
    long = [part for part in Path(text).parts if len(part.encode("utf-8", "replace")) > LONGEST]
    if long:  # pathlib raises for it wherever it looks
        raise UsageError(f"{shown(long[0])}: a name that is too long; shorten it to {LONGEST} bytes")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: {str(error).rstrip('.').lower()}; write the folder out") from error


def is_stream(path: Path) -> bool:
    """Whether ``path`` must be written in place: a device, a pipe, or a descriptor of this process
    (/dev/stdout). Such a file is never replaced."""
    if _descriptor(path) is not None:
        return True
    with suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def _descriptor(path: Path) -> int | None:
    """The open descriptor that ``path`` (/dev/stdout, /dev/fd/3) leads to; None for other paths."""
    for _ in range(LINKS):
        found = re.fullmatch(rf"/proc/(?:self|{os.getpid()})/fd/(\d+)", str(path))
        if found:
            return int(found[1])
        if not path.is_symlink():
            break
        path = Path(os.path.normpath(path.parent / os.readlink(path)))
    found = re.fullmatch(r"/dev/fd/(\d+)", str(path))
    return int(found[1]) if found else None


@contextmanager
def replacing(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """A temporary path beside ``path``, moved onto it when the block succeeds.

    The temporary path has the same suffix, by which some writers choose their format; ``suffix`` is for a
    path that has none. A link's target is replaced, not the link; a device or a pipe gets the bytes. The new
    file has the old one's permissions. Where anything fails, the old file stays as it was.

    Raises `UsageError` where the file cannot be written: no permission, a full disk, a size limit.
    """
    path = user_path(path)
    try:
        if is_stream(path):
            with _into_stream(path, path.suffix or suffix) as temporary:
                yield temporary
            return
        target = resolved(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target, suffix)
        _mine.add(temporary.name)
        try:
            temporary.touch()
            mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
            yield temporary
            temporary.chmod(mode)  # some writers leave their files to the owner alone
            _flush(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
            _mine.discard(temporary.name)
    except UsageError:
        raise
    except Exception as error:
        cause = _disk_error(error)
        if cause is None:
            raise
        raise unwritable(str(path), cause) from error


def resolved(path: Path) -> Path:
    """``path`` with its links followed, whether or not there is a file at their end."""
    with suppress(RuntimeError):  # links in a circle, before Python 3.13
        target = path.resolve()
        if not target.is_symlink():
            return target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def sweep(folder: Path) -> None:
    """Removes the temporary files of processes of this machine that are gone."""
    with suppress(OSError):
        for path in folder.iterdir():
            found = _LEFTOVER.match(path.name)
            if found and found[2] == _host and path.name not in _mine and not _alive(int(found[1])):
                path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """``value`` as indented JSON."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be written as JSON ({error}); keep to plain numbers, texts, lists "
                         "and dictionaries") from error
    write_text(path, text)


def write_text(path: str | Path, text: str) -> None:
    """``text`` in UTF-8, whatever the locale; half a character from a file's name is written as \\udcXX."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def finite(value: Any) -> Any:
    """``value`` with None for every number that is not finite, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _into_stream(path: Path, suffix: str) -> Iterator[Path]:
    """A private file whose bytes go to the device or pipe ``path`` when the block succeeds."""
    with tempfile.TemporaryDirectory(prefix="swg-fast-") as folder:
        private = Path(folder) / f"output{suffix}"
        yield private
        sys.stdout.flush()
        number = _descriptor(path)  # duplicated, so that later prints follow these bytes
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY) if number is None else os.dup(number)
        with open(private, "rb") as source, open(descriptor, "wb") as sink:
            shutil.copyfileobj(source, sink)


def temporary_name(target: Path, suffix: str = "") -> Path:
    """A name beside ``target`` that `sweep` recognises as a leftover once this process is gone."""
    end = target.suffix or suffix
    return target.with_name(f".{target.stem[:40]}.{os.getpid()}-{_host}-{next(_count)}.part{end}")


def _flush(path: Path) -> None:
    """Writes the file through to the disk, so that a full disk shows now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(process: int) -> bool:
    if process == os.getpid():
        return False  # this process's names are in _mine: an older one had its number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _disk_error(error: Exception) -> OSError | None:
    """The system's error behind ``error``, which some writers wrap in one of their own."""
    if isinstance(error, OSError):
        return error
    if type(error).__name__ == "SafetensorError":
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else errno.EIO
        return OSError(code, os.strerror(code))
    inner = error.__cause__ or error.__context__
    return inner if isinstance(inner, OSError) and inner.errno in MENDS else None


def unwritable(name: str, error: OSError) -> UsageError:
    """The error for a file ``name`` that cannot be written, with the cause and its mend."""
    return UsageError(f"{name}: cannot be written ({error.strerror or error}); "
                      f"{MENDS.get(error.errno or 0, 'give a path in a folder of yours')}")
