"""Evaluation: episodes in parallel, with one sampling call for a group of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from swg_fast.common.checks import of_kind
from swg_fast.common.errors import UsageError, note
from swg_fast.common.hardware import cores
from swg_fast.common.intervals import Interval, interval_text, score_interval
from swg_fast.common.seeds import stream_seed
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.base import Maze, TaskEnv
from swg_fast.envs.local import LocalEnv
from swg_fast.envs.registry import make_env
from swg_fast.envs.settings import ENDLESS, STATE_STRIDE, EnvSettings
from swg_fast.envs.source import EnvSource
from swg_fast.envs.vector import EnvironmentFailed, VectorEnv
from swg_fast.evaluation.counts import EpisodeCounts, check_drawn
from swg_fast.policy.bound_sampler import BoundSampler
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig


@dataclass
class Episode:
    """One episode of L steps: ``rewards`` [L], and for episode 0 its ``actions`` [L, A], in the environment's
    units.

    ``path`` [L+1, 2] and ``goal`` [2] are in metres; outside a maze empty and None. ``success`` is None
    where the environment does not report it.
    """

    index: int
    rewards: list[float] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    goal: np.ndarray | None = None
    path: list[np.ndarray] = field(default_factory=list)
    success: bool | None = None

    @property
    def total_reward(self) -> float:
        return float(sum(self.rewards))

    @property
    def length(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Score:
    """The mean score of some episodes and its 95 % interval (None: see `intervals`)."""

    seed: int | None  # None: several seeds
    scores: list[float]  # one an episode
    mean: float
    interval: Interval | None


@dataclass(repr=False)
class Evaluation:
    """The result of an evaluation, ``per_seed`` and over all ``episodes``. ``seconds`` are wall time, but
    "environments" are those that all steps took, of processes side by side.

    ``score_name`` names the score: D4RL's normalized score where a task has one, else the rate of success
    or the return. ``source`` is what was played in.
    """

    task: str
    episodes: list[Episode]
    pooled: Score
    score_name: str
    per_seed: list[Score]
    candidates: int
    seconds: dict[str, float]
    maze: Maze | None
    settings: dict[str, Any]
    simulator: dict[str, str]
    source: EnvSource

    def __repr__(self) -> str:
        scores, rate = self.pooled, self.success_rate
        shown = rate is not None and "success" not in self.score_name
        success = f", success {100 * (rate or 0):.0f} %" if shown else ""
        return (f"Evaluation of {self.task}: {self.score_name} "
                f"{interval_text(scores.mean, scores.interval, len(self.episodes))}{success}\n"
                f"  {len(self.episodes)} episodes of {self.env_steps / len(self.episodes):.0f} steps in the "
                f"mean, {len(self.per_seed)} seed(s), {self.settings['n_candidates']} candidate(s) a step, "
                f"{self.seconds['total']:.1f} s")

    @property
    def success_rate(self) -> float | None:
        """The share of episodes that succeeded; None where the environment does not say."""
        said = [episode.success for episode in self.episodes if episode.success is not None]
        return sum(said) / len(said) if said else None

    @property
    def normalized_score(self) -> float | None:
        """The score where it is D4RL's, normalized between two reference returns; else None."""
        return self.pooled.mean if "normalized" in self.score_name else None

    @property
    def env_steps(self) -> int:
        return sum(episode.length for episode in self.episodes)


def evaluate(policy: Policy, task: Any, config: SamplingConfig | str | None = None, *, episodes: int = 10,
             seed: int | Sequence[int] = 0, envs: int | None = None, workers: int | None = None,
             progress: bool = True, environment: EnvSettings | None = None, **overrides: Any) -> Evaluation:
    """Runs ``episodes`` episodes of ``task`` for each ``seed`` and scores them.

    ``task`` is any name that `swg_fast.envs.make_env` knows; a Gymnasium environment, which is played in this
    process, an episode at a time; or a function without arguments that makes one, in worker processes. Of a
    dictionary observation the policy gets the parts that its card names, or all. Actions are in the
    environment's units: by the bounds in the policy's card or, where it has none, by the environment's.

    ``environment`` has time-outs, a limit of steps, and whose code may run.
    ``config`` and ``overrides`` are settings as `Policy.sample` takes them. A seed sets every episode's
    start, goal and noise by its index, so that ``envs`` (how many run at once) and ``workers`` (processes) do
    not change them. While one half of the environments steps, the candidates of the other half are sampled.

    Raises `UsageError` for an unknown task, a policy of other sizes, arguments out of range, an environment
    that fails, hangs or gives what is no number, or a worker that died.
    """
    if not hasattr(policy, "bind"):  # another sampler may stand in: it needs bind, card and the two sizes
        of_kind("policy", policy, Policy, "give what load_policy returns")
    settings = environment or EnvSettings()
    of_kind("environment", settings, EnvSettings, "such as EnvSettings(step_timeout=10)")
    seeds = list(EpisodeCounts(episodes, seed, envs, workers).seed)
    sampler = policy.bind(config, **overrides)
    check_drawn(sampler.config)
    source = EnvSource(task, observation_keys=observation_keys(policy), trust=settings.trust)
    task, env = source.task, source.make()
    if (env.state_dim, env.action_dim) != (policy.state_dim, policy.action_dim):
        raise UsageError(
            f"the policy is for states of {policy.state_dim} and actions of {policy.action_dim}, "
            f"{task} has {env.state_dim} and {env.action_dim}; give a policy trained on it")
    envs, workers = _processes(source, episodes, envs, workers)
    settings = replace(settings, episode_limit=_limit(env, settings))
    bounds = _bounds(policy, env)
    runners = [_Runner(sampler, episodes, one, progress, bounds) for one in seeds]
    started = time.perf_counter()
    seconds = {"start": 0.0, "sampling": 0.0, "waiting": 0.0, "environments": 0.0}
    with VectorEnv(source, envs, workers, settings) if workers else LocalEnv(source, settings) as vector:
        seconds["start"] = time.perf_counter() - started
        for runner in runners:
            runner.run(vector)
            seconds |= {name: seconds[name] + spent for name, spent in runner.seconds.items()}
    seconds["total"] = time.perf_counter() - started
    done = [episode for runner in runners for episode in runner.done]
    used = {"episodes": episodes, "seed": seeds[0], "seeds": seeds, "envs": envs, "workers": workers,
            **asdict(settings), **asdict(sampler.config), "backend": sampler.carried_out_by}
    return Evaluation(
        task, done, _score(env, done, seeds[0] if len(seeds) == 1 else None), env.score_name,
        [_score(env, runner.done, runner.seed) for runner in runners],
        sum(runner.candidates for runner in runners), seconds, env.maze(), used, env.simulator(), source)


class Processes(NamedTuple):
    """How many environments play at once, and in how many worker processes: 0 is this one."""

    envs: int
    workers: int


def _processes(source: EnvSource, episodes: int, envs: int | None, workers: int | None) -> Processes:
    """As was asked for, or the defaults. `UsageError` for several of an environment that was given."""
    if not source.is_environment:
        envs = min(episodes, envs or 64)
        return Processes(envs, workers or min(cores(), envs, 16))
    if (envs or 1) > 1 or workers is not None:
        raise UsageError(f"{source.task}: one environment plays one episode at a time in this process; for "
                         "envs and workers give a function that makes environments")
    return Processes(1, 0)


def _bounds(policy: Policy, env: TaskEnv) -> ActionBounds:
    """The bounds that ``policy``'s actions are scaled to: its card's, or ``env``'s."""
    own = ActionBounds.from_card(policy.card, policy.action_dim)
    if own is not None and own != env.bounds:
        note(f"{env.task} takes actions from {env.bounds}, and the policy was trained for {own}; it acts in "
             "its own units, clipped to the environment's bounds")
    return own or env.bounds


def _limit(env: TaskEnv, settings: EnvSettings) -> int | None:
    """After how many steps an episode ends, whatever the environment says."""
    if settings.episode_limit is not None or env.max_episode_steps is not None:
        return settings.episode_limit
    warnings.warn(f"{env.task} has no time limit that it names, so its episodes end after {ENDLESS:,} steps "
                  "at the latest; choose another number with --episode-limit, or episode_limit=",
                  stacklevel=3)
    return ENDLESS


def _score(env: TaskEnv, episodes: list[Episode], seed: int | None) -> Score:
    scores = [env.score(episode.total_reward, episode.success) for episode in episodes]
    return Score(seed, scores, float(np.mean(scores)), score_interval(scores, env.succeeds_or_fails))


def observation_keys(policy: Policy) -> list[str] | None:
    """The parts of a dictionary observation that ``policy`` was trained on; None if its card names none."""
    keys = policy.card.get("observation_keys")
    if keys is None or (isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)):
        return keys
    raise UsageError(f"the policy's card has observation_keys {keys!r}, expected names; copy it again")


class _Runner:
    """The state of one seed's evaluation: each slot's episode and observation, and what is finished."""

    def __init__(self, sampler: BoundSampler, episodes: int, seed: int, progress: bool, bounds: ActionBounds
                 ) -> None:
        self.sampler, self.seed, self.bounds = sampler, seed, bounds
        self.total, self.progress = episodes, progress
        self.next_episode = 0
        self.running: dict[int, Episode] = {}
        self.observations: dict[int, np.ndarray] = {}
        self.finished: list[Episode] = []
        self.candidates = 0
        self.seconds = {"sampling": 0.0, "waiting": 0.0, "environments": 0.0}

    @property
    def done(self) -> list[Episode]:
        return sorted(self.finished, key=lambda episode: episode.index)

    def run(self, vector: VectorEnv | LocalEnv) -> None:
        """Plays all episodes. `UsageError` where one fails, naming it."""
        try:
            self._run(vector)
        except EnvironmentFailed as error:
            episode = self.running[error.slot]
            raise UsageError(f"{vector.task}, seed {self.seed}, episode {episode.index}, after "
                             f"{episode.length} steps: {error}") from error

    def _run(self, vector: VectorEnv | LocalEnv) -> None:
        from tqdm import tqdm

        half = (vector.count + 1) // 2
        groups = [range(half), range(half, vector.count)]
        self._begin(vector, list(range(vector.count)))
        pending: _Pending | None = None
        with tqdm(total=self.total, desc=f"episodes, seed {self.seed}", unit="ep", disable=not self.progress,
                  mininterval=0.5) as bar:
            while self.running:
                for number, group in enumerate(groups):
                    if pending is not None and pending.group == number:
                        self._collect(vector, pending.sent, bar)
                        pending = None
                    slots = [slot for slot in group if slot in self.running]
                    actions = self._act(slots) if slots else {}
                    if pending is not None:
                        self._collect(vector, pending.sent, bar)
                        pending = None
                    if actions:
                        pending = _Pending(number, vector.send_step(actions))

    def _begin(self, vector: VectorEnv | LocalEnv, slots: list[int]) -> None:
        """Gives each slot the next episode, while there are any."""
        seeds = {}
        for slot in slots:
            if self.next_episode < self.total:
                self.running[slot] = Episode(self.next_episode)
                seeds[slot] = stream_seed(self.seed, "episode", self.next_episode) & 0xFFFFFFFF
                self.next_episode += 1
        for slot, first in (vector.reset(seeds) if seeds else {}).items():
            self.observations[slot] = first.observation
            self.running[slot].goal = first.goal
            if first.position is not None:
                self.running[slot].path.append(first.position)

    def _act(self, slots: list[int]) -> dict[int, np.ndarray]:
        started = time.perf_counter()
        indices = np.array([self.running[s].index * STATE_STRIDE + self.running[s].length
                            for s in slots])
        samples = self.sampler.sample(np.stack([self.observations[s] for s in slots]), seed=self.seed,
                                      state_indices=indices)
        actions = self.bounds.to_environment(samples.actions.cpu().numpy())
        self.candidates += len(slots) * self.sampler.config.n_candidates
        self.seconds["sampling"] += time.perf_counter() - started
        for slot, action in zip(slots, actions, strict=True):
            if self.running[slot].index == 0:
                self.running[slot].actions.append(action)
        return dict(zip(slots, actions, strict=True))

    def _collect(self, vector: VectorEnv | LocalEnv, sent: dict[int, Any], bar: Any) -> None:
        started = time.perf_counter()
        results = vector.finish_step(sent)
        self.seconds["waiting"] += time.perf_counter() - started
        free = []
        for slot, result in results.items():
            episode = self.running[slot]
            episode.rewards.append(result.reward)
            self.seconds["environments"] += result.seconds
            self.observations[slot] = result.observation
            episode.success = result.success
            if result.position is not None:
                episode.path.append(result.position)
            if result.done or self._over(vector, slot):
                if not np.isfinite(episode.total_reward):
                    raise EnvironmentFailed("its rewards add up to no finite number; scale them", slot)
                self.finished.append(self.running.pop(slot))
                free.append(slot)
        if free:
            bar.update(len(free))
            mean = np.mean([episode.total_reward for episode in self.finished])
            bar.set_postfix({"mean_return": f"{mean:.3g}"})
            self._begin(vector, free)

    def _over(self, vector: VectorEnv | LocalEnv, slot: int) -> bool:
        """Whether the slot's episode has reached the limit. Raises for one that has no end."""
        length, limit = self.running[slot].length, vector.settings.episode_limit or STATE_STRIDE
        if length == STATE_STRIDE - 1 < limit:
            raise EnvironmentFailed("the episode has no end; give it one with --episode-limit", slot)
        return length == limit


class _Pending(NamedTuple):
    """The half of the environments that steps, and the slots by worker."""

    group: int
    sent: dict[int, Any]


def free_running_rate(task: str, envs: int, workers: int, seconds: float = 2.0,
                      settings: EnvSettings | None = None) -> float:
    """Environment steps/s of this machine with random actions and no policy."""
    settings = settings or EnvSettings()
    bounds = make_env(task, trust=settings.trust).bounds
    with VectorEnv(task, envs, workers, settings=settings) as vector:
        vector.reset({slot: slot for slot in range(envs)})
        rng = np.random.default_rng(0)
        alive, steps, started = set(range(envs)), 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            results = vector.step({slot: rng.uniform(*bounds.inside) for slot in alive})
            steps += len(results)
            finished = {slot: slot for slot, result in results.items() if result.done}
            if finished:
                vector.reset(finished)
        return steps / (time.perf_counter() - started)
