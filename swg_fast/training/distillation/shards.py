"""Pairs on disk: drawn in shards that are checked when they are read, and never drawn twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from swg_fast.common.atomic_files import replacing
from swg_fast.common.errors import UsageError
from swg_fast.common.identity import key_of
from swg_fast.common.interrupts import deferred, held
from swg_fast.common.progress import Spare
from swg_fast.training.distillation.pairs import GROUP, SHARD, PairMaker
from swg_fast.training.loop import Interrupted


def packed_pairs(maker: PairMaker, count: int, folder: Path | None, origin: str, progress: bool = True
                 ) -> torch.Tensor:
    """``count`` pairs packed for learning, [calls, count, W], on the CPU. Their walks' ends are kept in
    ``folder``, and taken from there where they are of ``origin``, what stands for teacher, data and settings;
    None keeps nothing.

    Raises `UsageError` where a walk's end is not finite, and `Interrupted` on Ctrl-C and SIGTERM, after the
    shard that is being drawn.
    """
    from tqdm import tqdm

    found = []
    bar = tqdm(total=count, desc=f"pairs ({maker.name})", unit="pair", disable=not progress, mininterval=0.5,
               file=Spare("stderr"))
    with deferred() as asked, bar:
        for shard, size in enumerate(_sizes(count)):
            path = folder / f"{maker.name}-{shard:06d}.safetensors" if folder is not None else None
            ends = _read(path, size, origin, maker) if path is not None else None
            if ends is None:
                ends = _sound(maker.ends(shard, size), maker, shard)
                if path is not None:
                    with held():
                        _write(path, ends, origin)
            found.append(maker.packed(shard, ends))
            bar.update(size)
            if asked() is not None and shard * SHARD + size < count:
                raise Interrupted(f"{shard * SHARD + size:,} of {count:,} pairs are drawn; continue with "
                                  "--resume", asked())
    return torch.cat(found, dim=1)


def drop_pairs(folder: Path) -> None:
    """Deletes the shards in ``folder``, and the folder where nothing else is in it."""
    for path in folder.glob(f"*-{'[0-9]' * 6}.safetensors"):
        path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _sizes(count: int) -> Iterator[int]:
    for first in range(0, count, SHARD):
        yield min(SHARD, count - first)


def _sound(ends: torch.Tensor, maker: PairMaker, shard: int) -> torch.Tensor:
    bad = ~ends.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        scale = maker.drawn(shard, len(ends)).groups[first // GROUP].guidance_scale
        raise UsageError(f"pair {shard * SHARD + first}: the teacher's walk at guidance_scale={scale:g} is "
                         "not finite; use a lower one, or a sound teacher")
    return ends


def _tag(ends_shape: tuple[int, ...], origin: str) -> dict[str, str]:
    return {"pairs": json.dumps({"origin": origin, "shape": list(ends_shape)})}


def _write(path: Path, ends: torch.Tensor, origin: str) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tag = _tag(tuple(ends.shape), origin) | {"sum": _digest(ends)}
    with replacing(path) as temporary:
        save_file({"ends": ends.contiguous()}, temporary, metadata=tag)


def _read(path: Path, size: int, origin: str, maker: PairMaker) -> torch.Tensor | None:
    """The ends in ``path``; None where there are none, or damaged ones, or others': they are drawn again."""
    from safetensors import SafetensorError, safe_open

    shape = (size, maker.settings.calls, maker.teacher.action_dim + 1)
    tag = _tag(shape, origin)
    try:
        with safe_open(path, framework="pt") as file:
            found, ends = file.metadata() or {}, file.get_tensor("ends")
    except (OSError, SafetensorError):
        return None
    sound = (tuple(ends.shape), ends.dtype) == (shape, torch.float32) and \
        found == tag | {"sum": _digest(ends)}
    return ends if sound else None


def _digest(ends: torch.Tensor) -> str:
    """What stands for the numbers."""
    return hashlib.sha256(ends.contiguous().numpy().tobytes()).hexdigest()


def origin_of(teacher: str, data_hash: str, settings: dict[str, object]) -> str:
    """What stands for all that decides the pairs; ``teacher`` for its weights and its walk."""
    names = ("cold_share", "calls", "seed", "held_out")
    return key_of({"teacher": teacher, "data": data_hash} | {name: settings[name] for name in names})
