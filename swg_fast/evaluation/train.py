"""`swg_fast.train`: a policy from a user's own data, scored while it trains if asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.common.progress import say
from swg_fast.data.load import bounds_of, from_arrays
from swg_fast.data.transitions import Transitions
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.gymnasium_ids import is_known
from swg_fast.envs.settings import EnvSettings
from swg_fast.envs.source import EnvSource
from swg_fast.evaluation.episodes import evaluate
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.loop import Scoring
from swg_fast.training.opening import show_opening
from swg_fast.training.prepare import PreparedRun, prepare_run
from swg_fast.training.run_config import RunOptions


def train(name: str = "own-data", *, observations: Any = None, actions: Any = None, rewards: Any = None,
          next_observations: Any = None, terminals: Any = None, timeouts: Any = None, environment: Any = None,
          out: str | Path | None = None, resume: bool = False, **settings: Any) -> Policy:
    """Trains a policy on a recording and returns it; it is in the folder OUT/policy too.

    The recording is arrays with a row a step: observations [N, S], actions [N, A], rewards [N], terminals [N]
    (left out: no step is terminal), and timeouts [N] or next_observations [N, S] or both. Without arrays it
    is the file or the name ``dataset`` among the settings, or the data of the task ``name``.

    ``name`` is a task's, whose preset and environment are then used, or any name for the run. Actions are in
    the units of the environment; their bounds are ``action_low`` and ``action_high`` among the settings, or
    those of ``environment``: a Gymnasium environment, a function that makes one, or the Box of its actions.
    The policy's `Policy.predict` and `evaluate` give actions in these units.

    ``out`` is the run's folder (default: runs/NAME), ``resume`` continues there. ``settings`` are fields of
    `swg_fast.training.settings.TrainSettings` and `swg_fast.training.run_config.RunOptions`, such as
    preset="small", critic_steps=20_000, seed=1, eval_every=5000, strict=True or quiet=True.

    Raises `UsageError` for data, settings or folders that cannot be used, before training; otherwise as
    `swg_fast.training.run.train` does.
    """
    given = {"observations": observations, "actions": actions, "rewards": rewards,
             "next_observations": next_observations, "terminals": terminals, "timeouts": timeouts}
    arrays = {key: value for key, value in given.items() if value is not None}
    if arrays and settings.get("dataset") is not None:
        raise UsageError("arrays and dataset= were given; give one of them")
    if not isinstance(name, str):
        raise UsageError(f"name is a {type(name).__name__}; give the name of a task, or of the run")
    bounds = None if environment is None else _bounds(environment, name)

    def recording(options: RunOptions) -> Transitions:
        return from_arrays(arrays, options.bounds or bounds)

    if arrays and not is_known(name):
        settings["new_task"] = True
    elif arrays and bounds is None:
        bounds = bounds_of(name)
    run = prepare_run(name, out=out, data=recording if arrays else None, bounds=bounds, **settings)
    if not run.options.quiet:
        show_opening(run)
    playable = environment if callable(environment) or hasattr(environment, "step") else name
    folder = run.train(resume=resume, loop=replace(run.loop_options(), scoring=scoring(run, playable)))
    if not run.options.quiet:
        say(f"policy: {folder}")
    return load_policy(folder, run.options.device)


def _bounds(environment: Any, name: str) -> ActionBounds:
    """The bounds of a space, an environment or what a function makes."""
    if hasattr(environment, "low") and hasattr(environment, "high"):
        return ActionBounds.of_space(environment, name)
    return EnvSource(environment, name).make().bounds


def scoring(run: PreparedRun, environment: Any) -> Scoring | None:
    """How ``run`` scores its policy while it trains; None where that was not asked for.

    Raises `UsageError` where ``environment`` cannot be made: before training, since it comes late.
    """
    options = run.options
    if options.eval_every is None:
        return None
    EnvSource(environment, run.task, trust=options.trust).make().close()
    settings = EnvSettings(trust=options.trust)

    def score(policy: Policy) -> float:
        return evaluate(policy, environment, episodes=options.eval_episodes, seed=run.settings.seed,
                        environment=settings, progress=False).pooled.mean

    return Scoring(options.eval_every, score)
