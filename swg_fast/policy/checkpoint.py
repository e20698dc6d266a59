"""Policy checkpoints: ``model.safetensors`` beside ``model_card.json``, never pickle."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swg_fast.common.atomic_files import replacing, sha256, sweep, user_path, write_json
from swg_fast.common.checks import choice
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import check_readable, validated
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.model import NETWORKS, Model
from swg_fast.policy.model_card import FORMAT, Card, empty_modules, read_card
from swg_fast.policy.sampling import card_entry, own_settings

WEIGHTS, CARD = "model.safetensors", "model_card.json"
PENDING = "model_card.pending.json"  # the card of weights that are about to be put in place
STORED = {"fp32": torch.float32, "fp16": torch.float16}


def save_checkpoint(directory: str | Path, model: Model, *, dtype: str = "fp32") -> Path:
    """Writes the two files into ``directory`` and returns it.

    ``dtype="fp16"`` halves the file; `load_checkpoint` gives float32 again. A process that is killed on
    the way leaves the old checkpoint or the new one, never a mixture: the new card is put beside the
    old, then the weights are replaced, then the card; it is the weights' hash that says which card is
    theirs.

    Raises `UsageError` where the folder cannot be written to, or a weight is beyond float16.
    """
    from safetensors.torch import save_file

    directory = user_path(directory)
    tensors = _stored(model, choice("storage type", dtype, STORED))
    card = model.card | {
        "sampling": card_entry(*own_settings(model.card.get("sampling"))),
        "format": FORMAT,
        "schedule": model.schedule.name,
        **dict.fromkeys(NETWORKS),
        **{part: module.config() for part, module in model.networks()},
        "stored": dtype,
    }
    validated(card, Card, "the policy's card", "keep to the types of a card that 'swg-fast train' writes")
    check_readable(card, "the policy's card")
    if any("\ud800" <= c <= "\udfff" for c in str(directory)):  # safetensors opens only names in UTF-8
        raise UsageError(f"{directory}: a name that is no text in UTF-8; give another")
    sweep(directory)
    with replacing(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
        write_json(directory / PENDING, card | {"weights_sha256": sha256(temporary)})
    os.replace(directory / PENDING, directory / CARD)
    return directory


def _stored(model: Model, dtype: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for part, module in model.networks():
        for name, tensor in module.state_dict().items():
            stored = tensor.detach().to("cpu", STORED[dtype]).contiguous().clone()
            if not bool(stored.isfinite().all()):
                raise UsageError(f"{part}.{name} has NaN, infinity or values beyond {dtype}; "
                                 "nothing is saved")
            tensors[f"{part}.{name}"] = stored
    return tensors | {"betas": model.schedule.betas}


def load_checkpoint(name_or_path: str | Path) -> Model:
    """A checkpoint from its folder, or a bundled one by its name.

    The sizes that the card names are compared with the tensors' before anything of that size is made.
    Raises `UsageError` where there is none, it is damaged, or its shapes are not those of its card.
    """
    from safetensors import SafetensorError, safe_open

    directory = find_checkpoint(name_or_path)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise UsageError(f"{weights}: not readable (no such file); copy it again")
    try:
        card = _card(directory)
        with safe_open(weights, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            modules = empty_modules(card, shapes, directory)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{weights}: not readable ({error}); copy it again") from error
    integers = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if integers:
        raise UsageError(f"{weights}: {integers[0]} is of {tensors[integers[0]].dtype}, expected floating "
                         "point; copy it again")
    for part, module in modules.items():
        _fill(module, tensors, part, directory)
    parts: dict[str, Any] = {part: module.eval() for part, module in modules.items()}
    return Model(schedule=NoiseSchedule(card["schedule"], tensors["betas"]), card=card, **parts)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint given by path or by a bundled name."""
    path = user_path(name_or_path)
    with suppress(OSError):  # a name too long, a folder that may not be looked into
        if (path / CARD).is_file() or ((path / PENDING).is_file() and (path / WEIGHTS).is_file()):
            return path
    folder = Path(str(resources.files("swg_fast.policy") / "bundled"))
    bundled = sorted(card.parent.name for card in folder.glob(f"*/{CARD}"))
    if str(name_or_path) in bundled:
        return folder / str(name_or_path)
    raise UsageError(
        f"no checkpoint at {str(name_or_path)!r}: no such folder with a {CARD}, and the bundled "
        f"ones are {', '.join(bundled) or 'none'}; give a folder that 'swg-fast train' wrote"
    )


def add_to_card(name_or_path: str | Path, **entries: Any) -> None:
    """Writes ``entries`` into the model card of a checkpoint. Raises as `find_checkpoint` does."""
    path = find_checkpoint(name_or_path) / CARD
    write_json(path, read_card(path) | entries)


def _card(directory: Path) -> dict[str, Any]:
    """The card that the weights were written with: the one in place or, where a save was cut short
    between its two files, the one that was to follow."""
    digest = sha256(directory / WEIGHTS)
    for name in (CARD, PENDING):
        if not (directory / name).is_file():
            continue
        card = read_card(directory / name)
        if card.get("weights_sha256", digest if name == CARD else None) == digest:
            return card
    raise UsageError(f"{directory / WEIGHTS}: not the weights that its card was written with (damaged, or "
                     "from another checkpoint); copy both files again")


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], part: str, where: Path) -> None:
    # Copies, which the allocator aligns: a view of the file's bytes lies anywhere, and some processors'
    # products sum in another order there: a loaded policy would not be, bit for bit, the one that was saved.
    given = {name: tensors[f"{part}.{name}"].to(torch.float32, copy=True) for name in module.state_dict()}
    for name, tensor in given.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"{where}: {part}.{name} has NaN or infinity; train or copy it again")
    module.load_state_dict(given, assign=True)
    module.requires_grad_(True)
