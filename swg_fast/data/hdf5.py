"""Reading HDF5 files, D4RL's and Minari's, which may come from anywhere.

A file can refer to other files (links, external storage, virtual datasets), in circles or to nothing, and
can declare far more than it holds. All of that is checked before an array is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError, reason
from swg_fast.data.findings import OTHER_ENDS
from swg_fast.data.gate import Declared, check_sizes
from swg_fast.data.transitions import ARRAYS, check_layout

LINKS = 16  # soft links followed on the way to an array
DAMAGE = (OSError, RuntimeError, KeyError, TypeError, ValueError)  # what h5py raises on it


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a D4RL HDF5 file that learning needs, and those that others name an episode's end.

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
            found |= {key: file[key] for key in OTHER_ENDS if _marks_rows(file, key, len(found["rewards"]))}
            check_sizes({key: _declared(dataset) for key, dataset in found.items()}, path, str(path))
            return {key: dataset[()] for key, dataset in found.items()}
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"{path}: needs more memory than there is; use a larger machine") from error
    except DAMAGE as error:
        raise unreadable(str(path), error) from error


def _marks_rows(file: Any, key: str, rows: int) -> bool:
    """Whether ``key`` is an array of this file with a number a row; what is none is left aside."""
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return False
    node = file[key]
    return (isinstance(node, h5py.Dataset) and node.shape == (rows,) and node.dtype.kind in "buif"
            and not node.is_virtual and not node.external)


def check_tree(path: Path, source: str) -> None:
    """Checks a whole file that another library will read. `UsageError` where it has links, or arrays that are
    stored elsewhere or declared larger than they can be."""
    import h5py

    arrays: dict[str, Declared] = {}

    def look(group: Any, prefix: str) -> None:
        for name in group:
            key = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UsageError(f"{source}: {key!r} is a link, which is not followed; save the array itself")
            node = group[name]
            if isinstance(node, h5py.Group):
                if node.id in above:  # a hard link back up
                    raise UsageError(f"{source}: {key!r} goes in circles; save the file again")
                above.append(node.id)
                look(node, f"{key}/")
                above.pop()
            elif isinstance(node, h5py.Dataset):
                _check_here(node, key, source)
                arrays[key] = _declared(node)

    try:
        with h5py.File(path, "r") as file:
            above = [file["/"].id]
            look(file, "")
    except DAMAGE as error:
        if isinstance(error, UsageError):
            raise
        raise unreadable(source, error) from error
    check_sizes(arrays, path, source)


def unreadable(source: str, error: BaseException, mend: str = "download or copy it again",
               form: str = "HDF5 file") -> UsageError:
    """What a reader's ``error`` about a file means; ``mend`` is for a damaged one."""
    said = reason(error)
    if "unable to lock" in said or "already open for" in said:
        return UsageError(f"{source}: is open in another program ({said}); wait until that has closed it")
    if "filter" in said:
        return UsageError(f"{source}: is compressed in a way that h5py here cannot read ({said}); save it "
                          "with gzip or uncompressed, such as with 'h5repack -f GZIP=4'")
    return UsageError(f"{source}: not a readable {form} ({said}); {mend}")


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
    _check_here(node, key, source)
    return node


def _check_here(node: Any, key: str, source: str) -> None:
    """`UsageError` where the array is stored in another file."""
    if node.is_virtual:
        raise UsageError(f"{source}: {key!r} is a virtual dataset, made of other arrays "
                         f"({node.virtual_sources()[0].file_name!r}); save the array itself")
    if node.external:
        raise UsageError(f"{source}: {key!r} is stored in another file ({node.external[0][0]!r}), which is "
                         "not read; save the array in this one")


def _declared(dataset: Any) -> Declared:
    return Declared(dataset.shape, dataset.dtype, int(dataset.id.get_storage_size()),
                    dataset.id.get_create_plist().get_nfilters() > 0)
