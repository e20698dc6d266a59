"""Minari's Arrow and Parquet folders, which may come from anywhere, checked before Minari reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.data.gate import check_fits
from swg_fast.data.hdf5 import DAMAGE, unreadable

FORMATS = ("arrow", "parquet")


def check_arrow(folder: Path, form: str, source: str) -> None:
    """`UsageError` where a file of ``folder`` is a link, is damaged or declares more than it holds, or where
    all of them do not fit in memory."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise UsageError(f"{source}: {str(path.relative_to(folder))!r} is a link, which is not followed; "
                             "save the file itself")
    try:
        parts = list(_parts(folder, form))
        sizes = (part.count_rows() * sum(map(_width, part.physical_schema.types)) for part in parts)
        check_fits(sum(sizes), source)
        for part in parts:
            for batch in part.to_batches():
                batch.validate(full=True)
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"{source} needs more memory than there is; use a larger machine") from error
    except DAMAGE as error:
        raise unreadable(source, error, form=f"{form.capitalize()} file") from error


def _parts(folder: Path, form: str) -> Iterator[Any]:
    """The files as Minari finds them."""
    from pyarrow.dataset import dataset

    yield from dataset(str(folder), format=form, ignore_prefixes=["_", ".", "metadata.json"]).get_fragments()


def _width(kind: Any) -> int:
    """Bytes of a row of this type. Texts and lists of any length count as none."""
    from pyarrow import types

    if types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if types.is_struct(kind):
        return sum(_width(kind.field(place).type) for place in range(kind.num_fields))
    return -(-kind.bit_width // 8) if types.is_primitive(kind) else 0
