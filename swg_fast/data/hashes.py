"""SHA-256 of D4RL's files: the published one, or else that of the file first used on this machine."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from swg_fast.common.atomic_files import sha256, write_text
from swg_fast.common.errors import UsageError, note


@lru_cache
def published() -> dict[str, str]:
    """{a file's path on D4RL's server: its SHA-256}, for the files of 29 tasks.

    Source: checksums.tsv of the d4rl_* sets of TensorFlow Datasets, which were made of D4RL's server. D4RL
    itself publishes none.
    """
    lines = Path(__file__).with_name("d4rl.sha256").read_text().splitlines()
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines)}


def check_hash(file: Path, target: Path, remote: str, source: str, mend: str) -> None:
    """Compares ``file``, which is or becomes ``target``, with the hash published for D4RL's file at
    ``remote``. Where none was published, the first file's hash is recorded beside ``target``, as `sha256sum`
    writes it, and later files are compared with that.

    Raises `UsageError` about ``source`` where the file is another one, and where the record is damaged.
    """
    found, expected = sha256(file), published().get(remote)
    if expected is not None:
        if found != expected:
            raise UsageError(f"{source} is not D4RL's file (its SHA-256 is {found[:12]}..., D4RL's is "
                             f"{expected[:12]}...); {mend}")
        return
    record = target.with_name(target.name + ".sha256")
    if not record.exists():
        try:
            write_text(record, f"{found}  {target.name}\n")
        except UsageError as error:  # a folder that others keep
            note(f"a later change of {target.name} would not be noticed: {error}")
        return
    try:
        expected = record.read_text(errors="replace").partition(" ")[0]
    except OSError as error:
        raise UsageError(f"{record}: cannot be read ({error.strerror or error}); delete it") from error
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise UsageError(f"{record}: holds no SHA-256; delete it")
    if found != expected:
        raise UsageError(f"{source} is not the file that was first used here (its SHA-256 is "
                         f"{found[:12]}..., that one's {expected[:12]}...); {mend}, or delete {record} if "
                         "the file may change")
