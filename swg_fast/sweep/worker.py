"""What a worker does: one training or one cell, without Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swg_fast.common.atomic_files import finite, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.identity import key_of
from swg_fast.data.load import load_for
from swg_fast.policy.checkpoint import CARD
from swg_fast.sweep.cell_checks import sampling_of
from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store, locked

if TYPE_CHECKING:
    from swg_fast.data import Transitions
    from swg_fast.training.loop import LoopOptions


def run_training(training: Training, store: Store, run: RunSettings) -> None:
    """Trains from the newest saved state, if there is one, unless the policy is finished. Of trainings that
    share a critic the first trains it while the others wait. A student's teacher is trained before.

    Raises `UsageError` where the data changed since the sweep was planned.
    """
    import torch

    from swg_fast.common.provenance import versions
    from swg_fast.training.loop import LoopOptions

    if training.distill:
        run_training(training.teacher, store, run)
    folder = store.training(training.key)
    # A worker that lost its driver may still hold the folder for a moment.
    with locked(folder.with_suffix(".lock"), wait=True), store.running(training.key, "training"):
        if store.trained(training.key):
            return
        torch.set_num_threads(run.threads)
        data = load_for(training.task, training.source, trust=run.trust)
        if data.fingerprint() != training.data_hash:
            raise UsageError(f"{training.source}: the data changed since the sweep was planned; "
                             "start it again")
        card = {"task": training.task, "dataset": Path(training.source).name,
                "transitions": len(data), "versions": versions()}
        if data.observation_keys is not None:
            card["observation_keys"] = list(data.observation_keys)
        options = LoopOptions(folder / "states", log_every=run.log_every, save_every=run.save_every,
                              progress=False)
        learn = _distil if training.distill else _train
        learn(training, data, store, run.device, card, options)


def _train(training: Training, data: Transitions, store: Store, device: str, card: dict[str, Any],
           options: LoopOptions) -> None:
    from swg_fast.training.run import train, train_critic
    from swg_fast.training.settings import TrainSettings

    folder, critic = store.training(training.key), store.critic(training.critic_key)
    settings = TrainSettings.from_dict(training.settings)
    with locked(critic.with_suffix(".lock"), wait=True):
        train_critic(data, settings, critic, device=device, options=options)
    train(data, settings, folder, device=device, resume=(folder / "run.json").is_file(), card=card,
          options=options, critic=critic)


def _distil(training: Training, data: Transitions, store: Store, device: str, card: dict[str, Any],
            options: LoopOptions) -> None:
    from swg_fast.policy.policy import load_policy
    from swg_fast.training.distillation.run import Teaching, distill
    from swg_fast.training.distillation.settings import DistillSettings

    folder, teacher = store.training(training.key), store.training(training.teacher.key) / "policy"
    teaching = Teaching.of(load_policy(teacher, device), DistillSettings(**training.distill))
    distill(teaching, data, folder, resume=(folder / "run.json").is_file(), card=card, options=options)


def run_cell(cell: Cell, store: Store, run: RunSettings, command: str | None = None) -> dict[str, Any]:
    """Computes a cell's result; writes its file and returns the file's contents. ``command`` started the
    sweep."""
    import torch

    from swg_fast.common.provenance import provenance

    torch.set_num_threads(run.threads)
    started = time.perf_counter()
    with store.running(cell.key, cell.label):
        result = _toy(cell, store) if cell.kind == "toy" else _evaluate(cell, store, run)
        made = provenance("cpu" if cell.kind == "toy" else run.device,
                          cell.training.data_hash if cell.training else None, command)
        value = cell.to_json() | {"result": finite(result), "run": asdict(run), "provenance": made,
                                  "seconds": round(time.perf_counter() - started, 3)}
        write_json(store.cell(cell.key), value)
    return value


def _toy(cell: Cell, store: Store) -> dict[str, Any]:
    """A toy's distances. Toys that share a training share it: the first of them trains."""
    from swg_fast.evaluation.toy import ToySettings, run_toy, train_toy
    from swg_fast.policy.policy import load_policy

    name = cell.settings["name"]
    settings = ToySettings(**{k: v for k, v in cell.settings.items() if k != "name"})
    folder = store.training(key_of({"toy": name, "training": settings.training().to_dict(),
                                    "seed": settings.seed}))
    with locked(folder.with_suffix(".lock"), wait=True):
        if not (folder / "policy" / CARD).is_file():
            policy, *_ = train_toy(name, settings, progress=False)
            policy.save(folder / "policy")
    policy = load_policy(folder / "policy")
    return {"distances": run_toy(name, settings, policy=policy, progress=False).distances}


def _evaluate(cell: Cell, store: Store, run: RunSettings) -> dict[str, Any]:
    from swg_fast.envs.settings import EnvSettings
    from swg_fast.evaluation.episodes import evaluate
    from swg_fast.evaluation.report import evaluation_json
    from swg_fast.policy.policy import load_policy

    folder = cell.policy or str(store.training(cell.training.key) / "policy")
    policy = load_policy(folder, run.device)
    settings = {"workers": run.threads} | cell.settings
    found = evaluate(policy, cell.task, progress=False, environment=EnvSettings(run.trust), **settings)
    result = evaluation_json(found, cell.policy or f"trainings/{cell.training.key}")
    pooled = found.pooled
    if pooled.interval is not None and pooled.interval.method == "wilson":  # it succeeds or fails
        result["successes"] = sum(score > 50 for score in pooled.scores)
    if cell.training:
        result["training"] = policy.card["training"]
    if cell.rank:
        result["rank_correlations"] = _rank(policy, cell, run.trust)
    return result


def _rank(policy: Any, cell: Cell, trust: Sequence[str]) -> list[float | None]:
    """For each of some held-out states, Spearman's correlation between the candidates' ranking weight and the
    critic's value; None where one of them does not vary. The weight is the expected one where candidates are
    selected by it, else the sampled one. A diagnostic: a critic may be wrong about actions off the data."""
    import torch
    from scipy.stats import spearmanr

    from swg_fast.policy.backends.search import asked

    if policy.model.critic is None:
        raise UsageError("the rank correlation needs a critic and this policy has none; leave out [rank]")
    train = cell.training
    data = load_for(train.task, train.source, trust=trust)
    kept, held_out = data.split(train.settings["held_out"], train.settings["seed"])
    seen = (held_out if len(held_out) else kept).observations
    rows = np.random.default_rng(cell.rank["seed"]).choice(len(seen), min(cell.rank["states"], len(seen)),
                                                           replace=False)
    states = torch.from_numpy(seen[np.sort(rows)])
    sampling = sampling_of(cell.settings)
    sampling |= {"n_candidates": cell.rank["candidates"], "seed": cell.rank["seed"]}
    drawn = policy.sample(states, return_candidates=True, **sampling)
    with torch.no_grad():
        values = asked(policy.model.critic, states.to(policy.device), drawn.candidates)
    found = []
    expected = cell.settings.get("select") == "expected_weight"
    ranking = drawn.expected_weights if expected else drawn.candidate_weights
    for weights, q in zip(ranking.cpu().numpy(), values.cpu().numpy(), strict=True):
        constant = np.ptp(weights) == 0 or np.ptp(q) == 0
        found.append(None if constant else round(float(spearmanr(weights, q).statistic), 6))
    return found
