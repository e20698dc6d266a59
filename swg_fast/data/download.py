"""Downloads D4RL's datasets by name to D4RL's own folder, without gym or d4rl, and resumes a download."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from swg_fast.common.atomic_files import unwritable, user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.locks import file_lock
from swg_fast.data.hashes import check_hash
from swg_fast.data.hdf5 import unreadable
from swg_fast.envs.tasks import Preset, find_preset

SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
TIMEOUT = 30.0  # seconds without a byte
SLOWEST = 1000  # bytes a second
BLOCK = 1 << 20
OTHERS = "-singletask-"  # in the name of every OGBench task that can be trained on

# Parts of the files' names, by task without its version.
_FILES = {
    "antmaze-umaze": "u-maze_noisy_multistart_False_multigoal_False",
    "antmaze-umaze-diverse": "u-maze_noisy_multistart_True_multigoal_True",
    "antmaze-medium-play": "big-maze_noisy_multistart_True_multigoal_False",
    "antmaze-medium-diverse": "big-maze_noisy_multistart_True_multigoal_True",
    "antmaze-large-play": "hardest-maze_noisy_multistart_True_multigoal_False",
    "antmaze-large-diverse": "hardest-maze_noisy_multistart_True_multigoal_True",
    "kitchen-complete": "mini_kitchen_microwave_kettle_light_slider",
    "kitchen-partial": "kitchen_microwave_kettle_light_slider",
    "kitchen-mixed": "kitchen_microwave_kettle_bottomburner_light",
}
# The same of -v0, by kind of data.
_ADROIT = {"human": "v0_demos_clipped", "cloned": "demos-v0-bc-combined", "expert": "v0_expert_clipped"}


def remote_path(task: str) -> str:
    """The path of the file of ``task`` on D4RL's server. `UsageError` for tasks that are not D4RL's."""
    if task.startswith("minari:") or OTHERS in task:
        raise UsageError(f"{task} is not D4RL's; 'swg-fast train {task}' downloads its data by itself")
    preset: Preset = find_preset(task)
    name, version = task.rsplit("-", 1)
    older = preset.newer is not None
    if preset.family == "antmaze":
        folder, fixed = ("ant_maze_new", "") if older else ("ant_maze_v2", "_fixed")
        return f"{folder}/Ant_maze_{_FILES[name]}_sparse{fixed}.hdf5"
    if preset.family == "kitchen":
        return f"kitchen/{_FILES[name]}-v0.hdf5"
    if preset.family == "adroit":
        hand, kind = name.split("-")
        return f"hand_dapg/{hand}-{_ADROIT[kind]}.hdf5" if older else f"hand_dapg_v1/{task}.hdf5"
    return f"gym_mujoco_v2/{name.replace('-', '_')}-{version}.hdf5"


def cache_folder() -> Path:
    """D4RL's own folder: $D4RL_DATASET_DIR, else ~/.d4rl/datasets."""
    return user_path(os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets")


def cached(task: str) -> Path:
    """Where the file of ``task`` is, or would be."""
    return cache_folder() / Path(remote_path(task)).name


def download(task: str, *, mirror: str | None = None, progress: bool = True) -> Path:
    """The path of the file of ``task``, which is downloaded to D4RL's folder unless it is there.

    ``mirror`` is an address that has D4RL's folders (``.../gym_mujoco_v2/...``) below it, and replaces D4RL's
    server. An interrupted download resumes where it stopped, or starts over where the server's file has
    changed since. The file gets its final name only once it is complete, opens as HDF5 and has the right
    hash (`check_hash`).

    Raises `UsageError` for an unknown task, where the file cannot be downloaded or written, and where it is
    not D4RL's.
    """
    target = cached(task)
    if target.is_file():
        again = "delete it to download it again"
        _check_hdf5(target, str(target), again)
        check_hash(target, target, remote_path(task), str(target), f"{again}, or give its path to --dataset")
        return target
    base = (SERVER if mirror is None else mirror).rstrip("/")
    if not base.startswith(("http://", "https://", "file://")):
        raise UsageError(f"--mirror {mirror}: expected an address that begins with http:// or https://")
    address = f"{base}/{remote_path(task)}"
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{part}: another process is downloading it; wait for it"
        for path in (part, _beside(part, ".from"), _beside(part, ".lock")):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UsageError(f"{path}: is a link or no file, which is not written through; remove it")
        with file_lock(_beside(part, ".lock"), busy), open(part, "ab+", opener=_no_link) as file:
            _fetch(task, address, file, part, progress)
            try:
                source, mend = f"{task}: what {address} gave", "give another address to --mirror"
                _check_hdf5(part, source, mend)
                check_hash(part, target, remote_path(task), source, mend)
            except UsageError:
                part.unlink()
                raise
            os.replace(part, target)
            for suffix in (".from", ".lock"):
                _beside(part, suffix).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(str(part), error) from error
    return target


def _fetch(task: str, address: str, file: BinaryIO, part: Path, progress: bool) -> None:
    """Appends the missing bytes to ``file``. Raises `UsageError` for the network, OSError for the disk."""
    from tqdm import tqdm

    have = part.stat().st_size
    origin = _beside(part, ".from")
    mark = origin.read_text() if have and origin.is_file() else ""
    have = have if mark.startswith(("etag ", "date ")) else 0  # of unknown origin: start over
    with _opened(task, address, have, mark.partition(" ")[2]) as answer:
        if answer.status != 206:
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise UsageError(f"{task}: {address} sends another part of the file than was asked for; delete "
                             f"{part} to start over, or give another address to --mirror")
        file.truncate(have)
        file.seek(have)
        origin.write_text(_identity(answer))
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isascii() and length.isdecimal() else None
        pace = _Pace()
        with tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True,
                  disable=not progress, mininterval=0.5) as bar:
            while block := _read(task, address, answer):
                file.write(block)
                bar.update(len(block))
                if pace.too_slow(len(block)):
                    raise UsageError(f"{task}: {address} sends less than {SLOWEST:,} bytes a second; run "
                                     "again later to continue, or give another address to --mirror")
        file.flush()
        os.fsync(file.fileno())
    size = part.stat().st_size
    if total is not None and size != total:
        raise UsageError(f"{task}: the connection to {address} ended after {size:,} of {total:,} bytes; run "
                         "again to continue")


@contextmanager
def _opened(task: str, address: str, have: int, validator: str) -> Iterator[Any]:
    headers = {"User-Agent": "swg-fast", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the server has no more than is here: start over
            with _opened(task, address, 0, "") as again:
                yield again
            return
        raise UsageError(f"{task}: {address} answers {error.code} ({error.reason}); give another address to "
                         f"--mirror, or the file's path to --dataset") from error
    except (OSError, ValueError, HTTPException) as error:  # no network, no such host, refused, timed out
        reason = getattr(error, "reason", error)
        raise UsageError(f"{task}: {address} cannot be reached ({reason}); give another address to "
                         "--mirror, or the file's path to --dataset") from error
    with answer:
        yield answer


def _read(task: str, address: str, answer: Any) -> bytes:
    try:
        return answer.read1(BLOCK)  # `read` would wait for the whole block
    except (OSError, ValueError, HTTPException) as error:
        raise UsageError(f"{task}: the connection to {address} broke ({error or type(error).__name__}); run "
                         "again to continue") from error


def _identity(answer: Any) -> str:
    """What tells a later download whether the file is still the same: a strong ETag, else the date."""
    tag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    return f"etag {tag}" if tag and not tag.startswith("W/") else f"date {date}" if date else ""


def _beside(part: Path, suffix: str) -> Path:
    """A file about ``part``: ".from" identifies the server's file, ".lock" is held during the download."""
    return part.with_name(part.name + suffix)


class _Pace:
    """How fast bytes come, judged every ``TIMEOUT`` seconds."""

    def __init__(self) -> None:
        self.since, self.count = time.monotonic(), 0

    def too_slow(self, count: int) -> bool:
        self.count += count
        seconds = time.monotonic() - self.since
        if seconds < TIMEOUT:
            return False
        slow = self.count < SLOWEST * seconds
        self.since, self.count = time.monotonic(), 0
        return slow


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _check_hdf5(path: Path, source: str, mend: str) -> None:
    """`UsageError` about ``source`` where the file is not HDF5 or not whole."""
    import h5py

    try:
        with h5py.File(path, "r"):
            pass
    except OSError as error:
        raise unreadable(source, error, mend) from error
