"""Finding a Minari dataset, on this machine or by download, and making its environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import need
from swg_fast.common.quiet import explain, unlogged
from swg_fast.envs.gymnasium_ids import known_gymnasium_ids
from swg_fast.envs.trust import check_spec


def open_dataset(name: str) -> Any:
    """The Minari dataset ``name``, from this machine or downloaded by Minari.

    Raises `UsageError` where Minari is not installed, or the dataset is not here and cannot be downloaded.
    """
    minari = need("minari", f"minari:{name}")
    try:
        return minari.load_dataset(name, download=False)
    except Exception:  # not on this machine; Minari raises various types
        try:
            with unlogged():  # Hugging Face logs every retry
                return minari.load_dataset(name, download=True)
        except Exception as error:
            raise UsageError(f"minari:{name} is not on this machine and could not be downloaded "
                             f"({explain(error)}); 'minari list remote' shows the names") from error


def recover(dataset: Any, source: str, trust: Sequence[str], **options: Any) -> Any:
    """The evaluation environment of ``dataset``. `UsageError` where it would run code that is not trusted."""
    known_gymnasium_ids()  # registers them
    for spec in (dataset.env_spec, dataset._eval_env_spec):
        check_spec(spec, source, trust)
    return dataset.recover_environment(eval_env=True, **options)
