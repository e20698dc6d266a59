"""Policy checkpoints: ``model.safetensors`` beside ``model_card.json``, never pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swg_fast.defaults import sampling_defaults
from swg_fast.errors import UsageError
from swg_fast.files import read_json, replacing, write_json
from swg_fast.networks import ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.schedule import NoiseSchedule

FORMAT = 1
WEIGHTS, CARD = "model.safetensors", "model_card.json"


@dataclass
class Checkpoint:
    """A score network, its schedule, and the critic if there is one.

    ``card`` is free JSON that travels along: data, settings, scores; ``card["sampling"]`` holds
    the policy's own defaults of sampling (`defaults.Sampling`), all of them once it is saved.
    """

    network: ScoreNetwork
    schedule: NoiseSchedule
    critic: TwinQ | None = None
    value: ValueNetwork | None = None
    card: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(directory: str | Path, checkpoint: Checkpoint) -> Path:
    """Writes the two files into ``directory`` and returns it."""
    from safetensors.torch import save_file

    directory = Path(directory)
    parts = {"network": checkpoint.network, "critic": checkpoint.critic, "value": checkpoint.value}
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
        for part, module in parts.items() if module is not None
        for name, tensor in module.state_dict().items()
    }
    tensors["betas"] = checkpoint.schedule.betas
    card = {
        "format": FORMAT,
        "network": checkpoint.network.config(),
        "schedule": checkpoint.schedule.name,
        "critic": checkpoint.critic.config() if checkpoint.critic is not None else None,
        "value": checkpoint.value.config() if checkpoint.value is not None else None,
    }
    with replacing(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    sampling = sampling_defaults(checkpoint.card.get("sampling"))
    write_json(directory / CARD, checkpoint.card | {"sampling": sampling} | card)
    return directory


def load_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """A checkpoint from its folder, or a bundled one by its name.

    Raises `UsageError` where there is none, it is damaged, or its shapes are not those of its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = find_checkpoint(name_or_path)
    card = read_json(directory / CARD)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UsageError(f"{directory / CARD}: not a checkpoint of format {FORMAT}; make it again "
                         "with 'swg-fast train' or 'swg-fast import-jax'")
    try:
        tensors = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{directory / WEIGHTS}: not readable ({error}); copy it again") from error
    try:
        network = ScoreNetwork(**card["network"])
        critic = TwinQ(**card["critic"]) if card.get("critic") else None
        value = ValueNetwork(**card["value"]) if card.get("value") else None
        schedule = NoiseSchedule(card["schedule"], tensors["betas"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{directory / CARD}: incomplete ({error}); copy the checkpoint again") from error
    for part, module in (("network", network), ("critic", critic), ("value", value)):
        if module is not None:
            _fill(module, tensors, part, directory)
    return Checkpoint(network.eval(), schedule, critic, value, card)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint given by path or by a bundled name."""
    path = Path(name_or_path).expanduser()
    if (path / CARD).is_file():
        return path
    assets = Path(str(resources.files("swg_fast") / "assets"))
    bundled = sorted(folder.parent.name for folder in assets.glob(f"*/{CARD}"))
    if str(name_or_path) in bundled:
        return assets / str(name_or_path)
    raise UsageError(
        f"no checkpoint at {str(name_or_path)!r}: no such folder with a {CARD}, and the bundled "
        f"ones are {', '.join(bundled) or 'none'}; give a folder that 'swg-fast train' wrote"
    )


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], part: str, where: Path) -> None:
    prefix = part + "."
    given = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    expected = module.state_dict()
    if given.keys() != expected.keys():
        name = sorted(given.keys() ^ expected.keys())[0]
        raise UsageError(f"{where}: {part} has other layers than its card says (first: {name}); "
                         "card and weights are from different checkpoints")
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            raise UsageError(
                f"{where}: {part}.{name} has shape {list(tensor.shape)}, its card says "
                f"{list(expected[name].shape)}; card and weights are from different checkpoints")
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"{where}: {part}.{name} has NaN or infinity; train or copy it again")
    module.load_state_dict(given)
