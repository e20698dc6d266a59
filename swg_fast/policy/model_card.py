"""A model card: its fields, and its sizes, held against the tensors' shapes before anything of such a size is
made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required

from torch import nn
from typing_extensions import TypedDict  # pydantic cannot read that of Python 3.11

from swg_fast.common.checks import text
from swg_fast.common.errors import UsageError, opened_by
from swg_fast.common.meta_modules import shapes_only
from swg_fast.common.read_files import read_json, validated
from swg_fast.method.schedule import MAX_STEPS
from swg_fast.policy.model import NETWORKS, check_fit, code_widths
from swg_fast.policy.sampling import own_settings

Shapes = Mapping[str, tuple[int, ...]]
FORMAT = 1
FITTED = "fitted_temperature"
JUDGED = "scorer"  # what the ranking is worth by another critic, and how many candidates are enough


class TrainingCard(TypedDict, total=False):
    """What a card says of the training. Older versions wrote less."""

    settings: dict[str, Any]
    data_hash: str | None
    held_out_losses: dict[str, float | None]


class TemperatureCard(TypedDict):
    """The selection temperature that was fitted to the policy's weights, and to what."""

    temperature: float
    states: int
    candidates: int
    sampler: str
    guidance_scale: float


class JudgementCard(TypedDict, total=False):
    """What another training's critic said of the ranking: how many candidates are enough, drawn and ranked by
    ``settings``. Older versions wrote less."""

    judge: str
    enough: int
    settings: dict[str, Any]


class Card(TypedDict, total=False):
    """What every version of this program writes; others may add what they like."""

    format: Required[int]
    schedule: Required[str]
    network: Required[dict[str, Any]]
    critic: dict[str, Any] | None
    value: dict[str, Any] | None
    ranker: dict[str, Any] | None
    student: dict[str, Any] | None
    critics: dict[str, Any] | None
    distilled: dict[str, Any] | None
    sampling: dict[str, Any] | None
    training: TrainingCard | None
    weight_family: dict[str, Any] | None
    fitted_temperature: TemperatureCard | None
    scorer: JudgementCard | None
    weights_sha256: str | None
    task: str | None
    dataset: str | None
    transitions: int | None
    observation_keys: list[str] | None
    action_bounds: dict[str, list[float]] | None
    versions: dict[str, str]


for _open in (Card, TrainingCard, JudgementCard):
    _open.__pydantic_config__ = {"extra": "allow"}  # type: ignore[union-attr]


def read_card(path: Path) -> dict[str, Any]:
    """The card in ``path``. `UsageError` where it is none, or of another format."""
    again = "make it again with 'swg-fast train' or 'swg-fast import-jax'"
    card = read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UsageError(f"{path}: not a checkpoint of format {FORMAT}; {again}")
    return validated(card, Card, str(path), again)


def empty_modules(card: Mapping[str, Any], shapes: Shapes, where: Path) -> dict[str, nn.Module]:
    """The networks that ``card`` describes, without memory for their parameters (on torch's meta device).

    Raises `UsageError` where the card is incomplete, has values of a wrong type, or where ``shapes``, of
    the checkpoint's tensors by name, are not what it says.
    """
    name = where / "model_card.json"
    try:
        own_settings(card.get("sampling"))
        text("schedule", card["schedule"])
        modules = {part: _empty(kind, part, card[part])
                   for part, kind in NETWORKS.items() if part == "network" or card.get(part) is not None}
        check_fit(modules.items(), code_widths(card, "student" in modules))
    except (KeyError, TypeError) as error:
        raise UsageError(f"{name}: incomplete ({error}); copy the checkpoint again") from error
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    expected = {f"{part}.{key}": tuple(tensor.shape)
                for part, module in modules.items() for key, tensor in module.state_dict().items()}
    betas = shapes.get("betas", ())
    if len(betas) != 1 or not 1 <= betas[0] <= MAX_STEPS:
        raise UsageError(f"{where}: betas have shape {list(betas)}, expected [T] with T in 1..{MAX_STEPS}; "
                         "copy the checkpoint again")
    odd = sorted((shapes.keys() - {"betas"}) ^ expected.keys())
    if odd:
        raise UsageError(f"{where}: {odd[0].partition('.')[0]} has other layers than its card says (first: "
                         f"{odd[0]}); card and weights are from different checkpoints")
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise UsageError(f"{where}: {key} has shape {list(shapes[key])}, its card says {list(shape)}; "
                             "card and weights are from different checkpoints")
    return modules


def _empty(kind: type[nn.Module], part: str, values: dict[str, Any]) -> nn.Module:
    with opened_by(f"{part}:"), shapes_only():
        return kind(**values)
