"""Checks of output paths, before the work whose results go there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from swg_fast.common.atomic_files import is_stream, resolved, sweep, temporary_name, unwritable, user_path
from swg_fast.common.errors import UsageError

PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".gif")
OURS = ("model.safetensors", "model_card.json", "config.toml", "sweep.json")  # what other commands read


def check_output(path: str | Path, option: str = "", suffixes: tuple[str, ...] = ()) -> None:
    """`UsageError` where a file cannot be written at ``path``, before the work that makes it.

    ``option`` is the option that gave the path, ``suffixes`` are the types that the writer knows. Tries the
    folder by making a file in it, and removes the temporary files that killed processes left there.
    """
    path = user_path(path)
    name = f"{option} {path}" if option else str(path)
    try:
        if path.is_dir():
            raise UsageError(f"{name}: is a folder; give the name of a file in it")
        if is_stream(path):
            if not os.access(path, os.W_OK):
                raise UsageError(f"{name}: may not be written to; give another path")
            return
        target = resolved(path)
        if suffixes and target.suffix.lower() not in suffixes:
            raise UsageError(f"{name}: {'type ' + target.suffix if target.suffix else 'no type'} is not one "
                             f"that can be written; end the name in {', '.join(suffixes)}")
        if not target.parent.is_dir():
            raise UsageError(f"{name}: its folder does not exist; create it first")
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageError(f"{name}: may not be written to; give another path")
        sweep(target.parent)
        temporary = temporary_name(target)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise unwritable(name, error) from error


def check_outputs(**paths: str | Path | None) -> None:
    """`check_output` for a command's paths by option (``json=``, ``plot=``, ``video=``), those that are
    not None. One file cannot be two outputs."""
    seen: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        check_output(path, f"--{option}", {"plot": PICTURES, "video": VIDEOS}.get(option, ()))
        target = resolved(user_path(path))
        if target.name in OURS and target.exists():
            raise UsageError(f"--{option} {path}: is a policy's, a run's or a sweep's own file; give another "
                             "name")
        if target in seen and not is_stream(target):
            raise UsageError(f"--{seen[target]} and --{option} are one file, {path}; give two names")
        seen[target] = option


def check_folder(path: str | Path, option: str = "--out") -> None:
    """`UsageError` where ``path`` is not a folder that can be written in and cannot become one."""
    path = user_path(path)
    try:
        there = path
        while not there.exists() and there != there.parent:
            if there.is_symlink():
                raise UsageError(f"{option} {path}: {there} is a link to nothing; remove it")
            there = there.parent
        if not there.is_dir():
            raise UsageError(f"{option} {path}: {there} is a file, not a folder; choose another folder")
        os.rmdir(tempfile.mkdtemp(prefix=".swg-fast-", dir=there))
    except OSError as error:
        raise unwritable(f"{option} {path}", error) from error
