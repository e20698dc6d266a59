"""Finding a Minari dataset, on this machine or by download, and making its environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import need
from swg_fast.common.quiet import explain, unlogged
from swg_fast.envs.gymnasium_ids import known_gymnasium_ids
from swg_fast.envs.trust import check_spec


def open_dataset(name: str, trust: Sequence[str]) -> Any:
    """The Minari dataset ``name``, from this machine or downloaded by Minari.

    Raises `UsageError` where Minari is not installed, where the dataset is not here and cannot be downloaded,
    is damaged, or would run code that is not trusted.
    """
    source = f"minari:{name}"
    minari = need("minari", source)
    try:
        folder = Path(minari.storage.get_dataset_path(name)) / "data"
        if not folder.exists():
            with unlogged():  # Hugging Face logs every retry
                minari.download_dataset(name)
    except Exception as error:  # Minari raises various types
        raise UsageError(f"{source} is not on this machine and could not be downloaded ({explain(error)}); "
                         "'minari list remote' shows the names") from error
    try:
        _check_spaces(folder, source, trust)
        return minari.load_dataset(name)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{source} cannot be read ({explain(error)}); remove {folder.parent} to download it "
                         "again") from error


def _check_spaces(folder: Path, source: str, trust: Sequence[str]) -> None:
    """`check_spec` where the dataset leaves spaces out: Minari then makes the environment to learn them."""
    from gymnasium.envs.registration import EnvSpec
    from minari.dataset.minari_storage import MinariStorage

    raw = MinariStorage.read_raw_metadata(folder)
    if not {"observation_space", "action_space"} <= set(raw) and "env_spec" in raw:
        known_gymnasium_ids()
        check_spec(EnvSpec.from_json(raw["env_spec"]), source, trust)


def recover(dataset: Any, source: str, trust: Sequence[str], **options: Any) -> Any:
    """The evaluation environment of ``dataset``. `UsageError` where it would run code that is not trusted."""
    known_gymnasium_ids()  # registers them
    for spec in (dataset.env_spec, dataset._eval_env_spec):
        check_spec(spec, source, trust)
    return dataset.recover_environment(eval_env=True, **options)
