"""Reading D4RL's HDF5 files, which may come from anywhere.

A file can refer to other files (links, external storage, virtual datasets), in circles or to nothing, and
can declare far more than it holds. All of that is checked before an array is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError, reason
from swg_fast.common.hardware import check_memory
from swg_fast.data.transitions import ARRAYS, check_layout

LINKS = 16  # soft links followed on the way to an array
SMALL = 2**24  # bytes; a smaller array may be declared in a file of any size
DENSEST = 1100  # deflate packs at most 1032 bytes into one
COPIES = 4  # of the arrays, while transitions are made of them


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a D4RL HDF5 file that learning needs.

    Raises `UsageError` where it is no such file, is damaged, reaches other files, or declares arrays
    that it does not hold.
    """
    import h5py

    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the path of a D4RL HDF5 file to --dataset")
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise UsageError(f"{path}: {what}; give the path of a D4RL HDF5 file to --dataset")
    try:
        with h5py.File(path, "r") as file:
            found = {key: _array(file, key, str(path)) for key in ARRAYS
                     if file.get(key, getlink=True) is not None}
            check_layout(found, str(path))
            for key, dataset in found.items():
                _check_storage(dataset, key, path)
            check_memory(COPIES * sum(_size(dataset) for dataset in found.values()), str(path),
                         "use a smaller dataset or a larger machine")
            return {key: dataset[()] for key, dataset in found.items()}
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"{path}: needs more memory than there is; use a larger machine") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises on damage
        raise UsageError(f"{path}: not a readable HDF5 file ({reason(error)}); "
                         "download or copy it again") from error


def _array(file: Any, key: str, source: str) -> Any:
    """The dataset ``key``, its soft links followed within the file."""
    import h5py

    node, rest, hops = file, [key], 0
    while rest:
        if not isinstance(node, h5py.Group):
            raise UsageError(f"{source}: {key!r} is a link to nothing; save the array itself")
        name = rest.pop(0)
        link = node.get(name, getlink=True)
        if link is None:
            raise UsageError(f"{source}: {key!r} is a link to nothing; save the array itself")
        if isinstance(link, h5py.ExternalLink):
            raise UsageError(f"{source}: {key!r} is a link into another file ({link.filename!r}), which is "
                             "not followed; save the array itself")
        if isinstance(link, h5py.SoftLink):
            hops += 1
            if hops > LINKS:
                raise UsageError(f"{source}: {key!r} is a link that goes in circles; save the array itself")
            node = file if link.path.startswith("/") else node
            rest = [part for part in link.path.split("/") if part not in ("", ".")] + rest
        else:
            node = node[name]
    if not isinstance(node, h5py.Dataset):
        kind = "a group" if isinstance(node, h5py.Group) else "no array"
        raise UsageError(f"{source}: {key!r} is {kind}, expected an array; save the file in D4RL's layout")
    if node.is_virtual:
        raise UsageError(f"{source}: {key!r} is a virtual dataset, made of other arrays "
                         f"({node.virtual_sources()[0].file_name!r}); save the array itself")
    if node.external:
        raise UsageError(f"{source}: {key!r} is stored in another file ({node.external[0][0]!r}), which is "
                         "not read; save the array in this one")
    return node


def _size(dataset: Any) -> int:
    """Bytes of the whole array in memory, as a Python integer, which does not overflow."""
    total = int(dataset.dtype.itemsize)
    for length in dataset.shape:
        total *= int(length)
    return total


def _check_storage(dataset: Any, key: str, path: Path) -> None:
    """`UsageError` where the declared array is larger than its stored bytes can be."""
    declared, stored = _size(dataset), int(dataset.id.get_storage_size())
    most = stored * (DENSEST if dataset.id.get_create_plist().get_nfilters() else 1)
    if declared > max(most, SMALL) or stored > path.stat().st_size:
        raise UsageError(f"{path}: {key!r} is declared with shape {list(dataset.shape)}, {declared:,} bytes, "
                         f"and {stored:,} are stored; the file is incomplete, write it again")
