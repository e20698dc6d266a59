"""Every file that a command reads back: its path, size, text, numbers and fields are checked in one place.

What a file holds is declared as a dataclass or a TypedDict; pydantic holds the file against it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

from swg_fast.common.atomic_files import user_path
from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError

T = TypeVar("T")
LARGEST = 2**28  # bytes, many times what any of our own files has
LARGEST_WHOLE = 2**64  # one more than the largest seed


def exists(path: str | Path) -> bool:
    """Whether there is anything at ``path``; a name that the system refuses names nothing."""
    return os.path.exists(user_path(path))


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a regular file; a name that the system refuses names none."""
    return os.path.isfile(user_path(path))


def read_text(path: str | Path, mend: str) -> str:
    """The text of ``path``, in UTF-8. `UsageError`, which ends in ``mend``, where it is no regular file or
    cannot be read. ValueError where it is no UTF-8."""
    path = user_path(path)
    try:
        status = path.stat()  # a pipe or a device would be waited for
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder, " if stat.S_ISDIR(status.st_mode) else ""
            raise UsageError(f"{path}: cannot be read ({kind}not a regular file); {mend}")
        if status.st_size > LARGEST:
            raise UsageError(f"{path}: {status.st_size:,} bytes, far more than such a file has; {mend}")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        cause = "no such file" if missing else error.strerror
        raise UsageError(f"{path}: cannot be read ({cause}); {mend}") from error


@overload
def read_json(path: str | Path, kind: type[T], mend: str = ..., migrate: Callable[[Any], Any] = ...) -> T: ...
@overload
def read_json(path: str | Path, *, mend: str = ...) -> Any: ...


def read_json(path: str | Path, kind: Any = None, mend: str = "give a JSON file that swg-fast wrote",
              migrate: Callable[[Any], Any] = lambda value: value) -> Any:
    """The JSON of ``path`` as a ``kind``: a dataclass or a TypedDict; as it stands where ``kind`` is None.

    ``migrate`` turns what an older version wrote into what this one reads.
    Raises `UsageError`, one line that names the file and the field and ends in ``mend``.
    """
    path = user_path(path)
    try:
        text = read_text(path, mend)
        value = _parsed(text)
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply; {mend}") from error
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON ({error}); {mend}") from error
    return value if kind is None else validated(migrate(value), kind, str(path), mend)


def check_readable(value: Any, name: str) -> None:
    """`UsageError` where `read_json` would not take ``value`` again, written as JSON."""
    try:
        _parsed(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: could not be read again ({error}); keep to plain numbers, texts, lists "
                         "and dictionaries") from error


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)


def validated(value: Any, kind: Any, name: str, mend: str) -> Any:
    """``value``, of plain lists and dictionaries, as a ``kind``. `UsageError` where a field is missing or of
    another type; ``name`` says where the value is from."""
    from pydantic import ValidationError

    try:
        # As JSON, which has lists alone: strict on Python's objects would refuse them for tuples.
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        said = first["msg"][:1].lower() + first["msg"][1:]
        if first["type"] == "missing":
            raise UsageError(f"{name}: incomplete: {where} is missing; {mend}") from error
        raise UsageError(f"{name}: {where}: {said}, got {shown(first['input'])}; {mend}") from error
    except (TypeError, ValueError, RecursionError) as error:  # a date of TOML, say
        raise UsageError(f"{name}: holds what JSON has no word for ({error}); {mend}") from error


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """The tables of ``path``; `UsageError` where there are none. ``what`` names the option that takes it."""
    path = user_path(path)
    try:
        return tomllib.loads(read_text(path, f"{what} takes a TOML file"))
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML ({error})") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refuse(text[:40])


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else LARGEST_WHOLE
    if abs(value) >= LARGEST_WHOLE:
        raise ValueError(f"{text[:20]}... is beyond 64 bits")
    return value
