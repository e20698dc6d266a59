"""A search's settings from a policy's and a call's, and the candidates that a judge found enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from swg_fast.common.checks import MAX_CANDIDATES, whole
from swg_fast.common.errors import UsageError
from swg_fast.policy.model import Model
from swg_fast.policy.model_card import JUDGED, JudgementCard
from swg_fast.policy.sampling import SamplingConfig, resolve

AUTO = "auto"
# With one candidate nothing is compared, and no noise is drawn unless it was asked for.
OF_SEVERAL = ("temperature", "average_share")


def resolved(own: SamplingConfig, config: SamplingConfig | str | None, given: Mapping[str, Any], model: Model
             ) -> SamplingConfig:
    """`sampling.resolve` for ``model``; n_candidates="auto" is the number that its card says is enough.

    Raises `UsageError` as `resolve` does, and for "auto" where no judge has looked at these settings.
    """
    scale = model.walk.default_scale if model.walk is not None else None
    if given.get("n_candidates") != AUTO:
        return resolve(own, config, given, scale)
    judged = model.card.get(JUDGED)
    if not isinstance(judged, Mapping) or not JudgementCard.__annotations__.keys() <= judged.keys():
        raise UsageError("n_candidates='auto' needs the judgement of another training's critic, and this "
                         "policy's card has none; make it with 'swg-fast inspect POLICY --judge OTHER "
                         "--record', or give a number")
    enough = whole(f"{JUDGED}'s enough in the policy's card", judged.get("enough"), 1, MAX_CANDIDATES)
    found = resolve(own, config, {**given, "n_candidates": enough}, scale)
    _check_same(found, judged["settings"])
    return found


def judged_settings(config: SamplingConfig) -> dict[str, Any]:
    """What a judgement of candidates depends on, as JSON has it: all settings but their number."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(config).items() if name != "n_candidates"}


def _check_same(config: SamplingConfig, judged: Mapping[str, Any]) -> None:
    """`UsageError` where ``config`` draws or ranks in another way than what was ``judged``."""
    for name, value in judged_settings(config).items():
        if config.n_candidates == 1 and name in OF_SEVERAL:
            continue
        if name in judged and judged[name] != value:
            raise UsageError(f"n_candidates='auto' was judged with {name}={judged[name]!r}, not {value!r}; "
                             "give a number, or leave the policy's own settings")
