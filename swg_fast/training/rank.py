"""What ranks candidates, added to a policy that is trained already: rankers, critics, a temperature. Its
diffusion stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device, set_threads
from swg_fast.common.identity import key_of
from swg_fast.common.output_paths import check_folder
from swg_fast.common.read_files import exists
from swg_fast.common.settings_fields import check_fields, check_named, like, nearest, setting
from swg_fast.data import Transitions
from swg_fast.data.load import load_for
from swg_fast.method.weight_functions import compute_weights
from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.model_card import FITTED, JUDGED
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.advantages import check_critic, find_advantages
from swg_fast.training.history import HISTORY
from swg_fast.training.loop import LoopOptions
from swg_fast.training.preflight import check_run
from swg_fast.training.run import last_losses, train_critics, train_ranker
from swg_fast.training.run_config import RunOptions
from swg_fast.training.run_folder import RunRecord, claimed
from swg_fast.training.saved_state import Origin
from swg_fast.training.selection_temperature import draws_of, fit_temperature, held_out_states
from swg_fast.training.settings import MOST_STEPS, TrainSettings
from swg_fast.training.source import Source, find_source

# What of a training's settings is chosen anew; the others are those that the policy was trained with.
CHOSEN = ("rankers", "ranker_steps", "ranker_hidden_dim", "ranker_others", "critics", "critic_steps", "seed")
ENTRY = "ranking_training"  # in the card
MOST_FITTED = 1_000_000  # states


@dataclass(frozen=True)
class RankOptions:
    """What the training of rankers and critics needs beside its settings."""

    dataset: str | None = setting(
        None, "The data to learn from: a D4RL HDF5 file, minari:NAME or OGBench's .npz file. Left out: "
              "the run's dataset, or that of the policy's task.")
    value_steps: int = setting(5_000, "Steps that fit V again, for rankers of a policy that was saved "
                                      "without it.", min=1, top=MOST_STEPS)
    temperature_states: int | None = setting(
        None, "Fit the temperature that --selection-temperature auto stands for, on this many held-out "
              "states. Left out: it is not fitted.", min=1, top=MOST_FITTED)
    trust: tuple[str, ...] = like(RunOptions, "trust", ())
    mirror: str | None = like(RunOptions, "mirror", None)
    device: str = like(RunOptions, "device", "auto")
    threads: int | None = like(RunOptions, "threads", None)
    log_every: int = like(RunOptions, "log_every", 1000)
    save_every: int = like(RunOptions, "save_every", 10_000)
    quiet: bool = setting(False, "No progress bar.")

    def __post_init__(self) -> None:
        check_fields(self)


def rank_fields() -> dict[str, Any]:
    """Every field that may be chosen, by name."""
    known = {entry.name: entry for entry in fields(TrainSettings)}
    return {name: known[name] for name in CHOSEN} | {entry.name: entry for entry in fields(RankOptions)}


@dataclass(frozen=True)
class PreparedRank:
    """What is to be added to ``model``, checked: nothing of it has been trained. rewards [N]: of ``data``, as
    the critics learn them."""

    model: Model
    data: Transitions
    rewards: np.ndarray
    settings: TrainSettings
    options: RankOptions
    device: torch.device

    def train(self, out: Path, resume: bool, stop_after: int | None) -> Path:
        """Trains what is to be added, and returns the folder of the new policy, ``out/policy``."""
        settings, options, name = self.settings, self.options, self.options.dataset or ""
        own = {"value_steps": options.value_steps, "temperature_states": options.temperature_states}
        values = settings.to_dict() | own | {"policy": self.model.card.get("weights_sha256") or ""}
        mine = RunRecord(values, len(self.data), self.data.fingerprint(), kind="rank")
        with claimed(out, mine, resume) as record:
            history = out / "logs" / HISTORY
            origin = Origin(record.id, key_of(values), data=mine.data_hash)
            added = self._added(LoopOptions(
                out / "states", log_every=options.log_every, save_every=options.save_every,
                progress=not options.quiet, resume=resume, origin=origin, stop_after=stop_after,
                history=history))
            about = {name: values[name] for name in CHOSEN} | own | {
                "dataset": Path(name).name if exists(name) else name, "data_hash": mine.data_hash,
                "held_out_losses": last_losses(history)}
            # The judgement may be that of a ranking by what is replaced here.
            card = {ENTRY: about, JUDGED: None} | self._temperature()
            return save_checkpoint(out / "policy", replace(self.model.with_card(**card), **added))

    def _temperature(self) -> dict[str, Any]:
        """What the card says of the fitted temperature, if one is asked for."""
        count, settings = self.options.temperature_states, self.settings
        if count is None:
            return {}
        states = held_out_states(self.data, settings.held_out, count, settings.seed)
        policy = Policy(**self.model.parts(), device=self.device)
        return {FITTED: asdict(fit_temperature(policy, states, settings.seed))}

    def _added(self, loop: LoopOptions) -> dict[str, Any]:
        """The trained parts, by their names in `Model`."""
        data, settings = self.data, self.settings
        added: dict[str, Any] = {}
        if settings.ranker_steps:
            advantages = find_advantages(self.model, data, settings, self.options.value_steps)
            weights = compute_weights(advantages, settings.weight_function, settings.parameter_of_weights(),
                                      rescale=settings.rescale_weights).numpy()
            added["ranker"] = train_ranker(data, weights, settings, self.device, loop)[0]
        if settings.critics:
            added["critics"] = train_critics(data, self.rewards, settings, self.device, loop)[0]
        return added


def rank(policy: str | Path, *, out: str | Path | None = None, resume: bool = False,
         stop_after: int | None = None, **chosen: Any) -> Policy:
    """Adds rankers, critics or a fitted temperature to ``policy`` (a policy's folder, a run's, or a bundled
    policy's name). Returns the new policy; it is in the folder OUT/policy too (default: runs/NAME-ranked).

    ``chosen`` are fields of `RankOptions` and those of `TrainSettings` in `CHOSEN`, such as rankers=5 and
    critics=5. Everything else is as the policy was trained. ``resume`` continues from the newest states, bit
    for bit; ``stop_after`` stops after so many steps of a phase. The card has the settings under
    "ranking_training".

    Raises `UsageError` for a policy, data, settings or folders that cannot be used, before training;
    otherwise as `swg_fast.training.run.train` does.
    """
    out = folder_for(policy, out)
    check_folder(out)
    prepared = _prepare(find_source(policy), chosen)
    return load_policy(prepared.train(out, resume, stop_after), prepared.device)


def folder_for(policy: str | Path, out: str | Path | None) -> Path:
    """The run's folder: ``out``, or the default."""
    return user_path(Path("runs") / f"{user_path(policy).name or 'policy'}-ranked" if out is None else out)


def _prepare(source: Source, chosen: Mapping[str, Any]) -> PreparedRank:
    unknown = [name for name in chosen if name not in rank_fields()]
    if unknown:
        raise UsageError(f"unknown setting {unknown[0]!r}; {nearest(unknown[0], rank_fields())}")
    chosen = check_named((RankOptions, TrainSettings), chosen, "setting")
    options = RankOptions(**{name: value for name, value in chosen.items() if name not in CHOSEN})
    settings = _settings(source, {name: value for name, value in chosen.items() if name in CHOSEN})
    if not (settings.ranker_steps or settings.critics or options.temperature_states):
        raise UsageError("nothing to add; give --rankers 5, --critics 5 or --temperature-states 1000")
    if options.threads:
        set_threads(options.threads)
    device = resolve_device(options.device)
    assert source.folder is not None  # `_settings` refuses
    model = load_checkpoint(source.folder)
    if settings.ranker_steps:
        check_critic(model)
    if options.temperature_states is not None:
        draws_of(Policy(**model.parts(), device=device))
    options = replace(options, dataset=options.dataset or source.dataset or source.task)
    if options.dataset is None:
        raise UsageError(f"{source.name}: its card names no data; give a --dataset")
    data = load_for(source.task, options.dataset, observation_keys=source.observation_keys,
                    mirror=options.mirror, trust=options.trust, bounds=source.bounds)
    source.check_sizes(model.state_dim, model.network.action_dim, data)
    return PreparedRank(model, data, check_run(data, settings, device), settings, options, device)


def _settings(source: Source, chosen: Mapping[str, Any]) -> TrainSettings:
    """The policy's own settings with those that were ``chosen``."""
    if source.folder is None:
        raise UsageError(f"{source.name}: this run has no policy yet; wait until it has ended")
    if source.settings is None:
        raise UsageError(f"{source.name}: its card does not say how its critic was trained; train a policy "
                         "with 'swg-fast train --rankers 5 --critics 5'")
    # What ranks learns in fp32 always, and what was trained before is not trained again.
    plain = replace(source.settings, precision="fp32", rankers=None, ranker_steps=0, critics=None)
    return replace(plain, **chosen)
