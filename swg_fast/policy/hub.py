"""Policies on the Hugging Face hub: a folder of safetensors and JSON, sub-folders included, and its card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from swg_fast.common.atomic_files import user_path, write_text
from swg_fast.common.checks import text
from swg_fast.common.errors import UsageError, reason
from swg_fast.common.optional_packages import need

FILES = ("*.safetensors", "*.json")  # also of sub-folders; nothing else of a repository is read or sent
README = "README.md"
NAME = re.compile(r"[\w.-]+/[\w.-]+")
TAGS = ["reinforcement-learning", "offline-reinforcement-learning", "diffusion", "self-weighted-guidance"]


def fetched(name_or_path: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None,
            token: str | None = None) -> Path:
    """The folder of a policy: ``name_or_path`` where that is a folder or a bundled name, else the copy of the
    hub's repository NAMESPACE/NAME in the hub's own cache, of ``revision`` (a branch, a tag or a commit).

    Raises `UsageError` where the extra `hub` or the network is missing, or there is no such repository.
    """
    path = user_path(name_or_path)
    if path.is_dir() or not NAME.fullmatch(str(name_or_path)):
        return path
    with _hub(f"the policy {name_or_path}") as hub:
        return Path(hub.snapshot_download(str(name_or_path), revision=revision, cache_dir=cache_dir,
                                          token=token, allow_patterns=list(FILES)))


def uploaded(folder: Path, repo_id: str, *, private: bool = False, revision: str | None = None,
             token: str | None = None) -> str:
    """Makes the repository ``repo_id`` if there is none, uploads `FILES` and the card of ``folder`` in one
    commit, and returns its address.

    Raises `UsageError` where the extra `hub`, the network or a login is missing.
    """
    with _hub(f"uploading {repo_id}") as hub:
        api = hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision,
                                   allow_patterns=[*FILES, README], commit_message="A policy of swg-fast")
    return str(commit.commit_url)


def check_upload(repo_id: str) -> None:
    """`UsageError` where the extra is missing or ``repo_id`` is no NAMESPACE/NAME. Call it before any work.
    """
    if not NAME.fullmatch(text("repo_id", repo_id)):
        raise UsageError(f"repo_id is {repo_id!r}; give NAMESPACE/NAME, such as me/antmaze-umaze")
    need("huggingface_hub", f"uploading {repo_id}")


def copy_beside(source: str | Path, target: Path) -> None:
    """Copies what the hub keeps of a checkpoint's folder ``source``, sub-folders included, to ``target``.
    `UsageError` where there is no such folder or a file cannot be read."""
    source = user_path(source)
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder; give the folder of a policy")
    try:
        for pattern in FILES:
            for path in source.rglob(pattern):
                if path.is_file() and not path.name.startswith("."):  # those are of a save that was cut short
                    place = target / path.relative_to(source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place)
    except OSError as error:
        raise UsageError(f"{source}: cannot be copied ({reason(error)}); give a folder that you may read"
                         ) from error


def write_card(folder: Path, card: Mapping[str, Any], repo_id: str, license: str | None) -> None:
    """Writes README.md, whose YAML header the hub reads: licence, library, tags, pipeline and data set."""
    data = need("huggingface_hub", "a model card").ModelCardData(
        license=license or card.get("licence") or "unknown", library_name="swg-fast",
        pipeline_tag="reinforcement-learning", tags=[*TAGS, *filter(None, [_word(card.get("task"))])],
        datasets=[word] if (word := _word(card.get("dataset"))) else None)
    write_text(folder / README, f"""---
{data.to_yaml()}
---
# {repo_id}

A policy of [Self-Weighted Guidance](https://arxiv.org/abs/2505.18345) for the task {card.get("task")}.

```python
from swg_fast import Policy  # pip install 'swg-fast[hub]'

policy = Policy.from_pretrained("{repo_id}")
action, _ = policy.predict([0.0] * policy.state_dim)  # your observation in place of the zeros
```

`model_card.json` has its sizes, its sampling settings and how it was trained.
""")


def _word(value: Any) -> str | None:
    """A name as the hub takes it: of letters, digits, dots, dashes and underscores, without a file's suffix;
    None where nothing is left."""
    stem = re.sub(r"\.(hdf5|h5|npz)$", "", str(value or ""))
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or None


@contextmanager
def _hub(what: str) -> Iterator[ModuleType]:
    """The package `huggingface_hub`, whose errors become a `UsageError` about ``what``."""
    hub = need("huggingface_hub", what)
    # Its base is the error of the HTTP library, which is another one in other versions of the package.
    http_error = need("huggingface_hub.errors", what).HfHubHTTPError.__mro__[1]
    try:
        yield hub
    except (OSError, ValueError, http_error) as error:
        raise UsageError(f"{what}: {reason(error)}; check the name, the network and 'hf auth login', or give "
                         "a folder") from error
