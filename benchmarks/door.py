"""Why a policy of door-human scores less than its demonstrations: their starts and their length.

    python -m benchmarks.door --data door-human.hdf5 --policy DIR --json benchmarks/results/door.json

The task begins with every joint at 0. The demonstrations begin with arm and wrist raised, and with doors in a
wider range of places. Here the hand's first pose and the door's place each come from the task or from a
demonstration. Episodes have 300 steps; scores are given for the task's 200 steps and for all 300.
- replay: each demonstration's actions from its own start, to compare the simulator with the recording;
- starts: the distance of the task's first joints from the demonstrations', in standard deviations;
- play: the policy, one cell for each of --guidance-scales and --candidates;
- nearest: instead of the policy, the action of the nearest recorded state of another demonstration.
Each cell is written at once, under --label; run again to continue, or to add another policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import Several, recorded, save
from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import sha256
from swg_fast.common.intervals import mean_interval
from swg_fast.common.seeds import stream_seed
from swg_fast.data.hdf5 import read_hdf5
from swg_fast.envs import make_env
from swg_fast.envs.d4rl_env import D4RLEnv
from swg_fast.policy.policy import load_policy

APART = ("starts", "simulator", "provenance", "versions")  # parts of the JSON that are not cells
TASK, LIMIT, LONG = "door-human-v1", 200, 300
OPEN = 5  # a reward above it means that the door is open by more than one radian
SOURCES = "task:task,task:demonstration,demonstration:task,demonstration:demonstration"
JOINTS, LATCH, HINGE, PALM, HANDLE = slice(0, 27), 27, 28, slice(29, 32), slice(32, 35)
Act = Callable[[np.ndarray, int], np.ndarray]  # observations [E, S] and the step -> actions [E, A]


def begin(env: D4RLEnv, number: int, hand: np.ndarray | None, door: np.ndarray | None) -> np.ndarray:
    """The first observation of `evaluate`'s episode ``number``. ``hand`` and ``door``, if given, are recorded
    first observations that replace the hand's pose and the door's place."""
    first = env.reset(stream_seed(0, "episode", number) & 0xFFFFFFFF)
    core = env.core
    qpos, qvel = core.init_qpos.copy(), core.init_qvel.copy()
    if hand is not None:
        qpos[1:28], qpos[-2], qpos[-1] = hand[JOINTS], hand[HINGE], hand[LATCH]
        core.set_state(qpos, qvel)
        # The first joint, a slide, is not observed; the palm, which it moves along a line, is.
        palm = core.data.site_xpos[core.grasp_sid].copy()
        qpos[0] += 1e-2
        core.set_state(qpos, qvel)
        along = (core.data.site_xpos[core.grasp_sid] - palm) / 1e-2
        qpos[0] += (hand[PALM] - palm) @ along / (along @ along) - 1e-2
        core.set_state(qpos, qvel)
    if door is not None:
        core.model.body_pos[core.door_bid] += door[HANDLE] - first[HANDLE]
    core.sim.forward()
    return np.asarray(core.get_obs(), np.float32)


def play(env: D4RLEnv, starts: list[tuple], act: Act) -> np.ndarray:
    """Rewards [E, LONG] of episodes from ``starts``; one simulation plays them all in turn, step by step."""
    observations = np.stack([begin(env, *start) for start in starts])
    core, found = env.core, np.zeros((len(starts), LONG))
    kept = [saved(env, *start) for start in starts]
    for step in range(LONG):
        actions = act(observations, step)
        for i, state in enumerate(kept):
            core.set_env_state(state)
            core.data.real.qacc_warmstart[:] = state["warm"]
            observation, found[i, step], _, _ = core.step(actions[i])
            observations[i] = observation
            kept[i] = core.get_env_state() | {"warm": core.data.real.qacc_warmstart.copy()}
    return found


def saved(env: D4RLEnv, *start: Any) -> dict[str, np.ndarray]:
    begin(env, *start)
    return env.core.get_env_state() | {"warm": env.core.data.real.qacc_warmstart.copy()}


def scores(env: D4RLEnv, rewards: list[np.ndarray]) -> dict[str, Any]:
    """The mean score of the task's steps and of all steps, and the share of episodes that opened the door."""
    found: dict[str, Any] = {"episodes": len(rewards)}
    for name, most in (("within", LIMIT), ("whole", LONG)):
        each = [env.score(float(one[:most].sum()), None) for one in rewards]
        interval = mean_interval(each)
        found[name] = {"score": float(np.mean(each)), "interval": asdict(interval) if interval else None,
                       "opened": float(np.mean([(one[:most] > OPEN).any() for one in rewards]))}
    steps = [int(np.argmax(one > OPEN)) for one in rewards if (one > OPEN).any()]
    return found | {"opened_at": sorted(steps)}


def nearest(observations: np.ndarray, actions: np.ndarray, episodes: np.ndarray) -> Act:
    """Acts as in the nearest state of the demonstrations, without the demonstration of the episode's number.
    """
    spread = np.maximum(observations.std(0), 1e-3)
    known, count = observations / spread, episodes.max() + 1

    def act(now: np.ndarray, step: int) -> np.ndarray:
        far = (np.square(known - one / spread).sum(1) + 1e9 * (episodes == i % count)
               for i, one in enumerate(now))
        return actions[[each.argmin() for each in far]]

    return act


def markdown(found: dict[str, Any]) -> str:
    """A line for each cell: scores with intervals, how often the door opens, and its median step."""
    lines = ["| who acts | how | score, 200 steps | score, 300 steps | opened | at step |", "|---" * 6 + "|"]
    for name in (part for part in found if part not in APART):
        for key, cell in found[name].items():
            both = (f"{part['score']:.0f} [{part['interval']['low']:.0f}, {part['interval']['high']:.0f}]"
                    for part in (cell["within"], cell["whole"]))
            steps = cell["opened_at"]
            lines.append(f"| {name} | {key} | {' | '.join(both)} | {len(steps)} of {cell['episodes']} "
                         f"| {np.median(steps):.0f} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=Path, required=True)
@click.option("--policy", "policy_name", help="Checkpoint folder.  [default: no policy plays]")
@click.option("--label", default="as trained", help="Name of the policy in the JSON.")
@click.option("--guidance-scales", type=Several(float), default="0,1")
@click.option("--candidates", type=Several(), default="1", help="One candidate is drawn at temperature 0.")
@click.option("--sources", default=SOURCES, help="HAND:DOOR each.")
@click.option("--json", "json_path", type=Path, required=True)
def main(data: Path, policy_name: str | None, label: str, guidance_scales: list[float],
         candidates: list[int], sources: str, json_path: Path) -> None:
    results = recorded(json_path, {}, dict[str, dict[str, Any]])
    env, raw, used = make_env(TASK), read_hdf5(data), sha256(data)
    assert isinstance(env, D4RLEnv)
    ends = np.flatnonzero(raw["timeouts"].astype(bool) | (raw["terminals"] > 0))
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    first = raw["observations"][begins]

    def starts(hand: str, door: str) -> list[tuple]:
        """One start for each demonstration; two with the task's doors, which differ in every episode."""
        every = first if door == "demonstration" else np.concatenate([first, first])
        return [(number, one if hand == "demonstration" else None, one if door == "demonstration" else None)
                for number, one in enumerate(every)]

    def add(name: str, key: str, value: dict[str, Any]) -> None:
        results.setdefault(name, {})[key] = value
        save(json_path, results | {"simulator": env.simulator()}, data_hash=used)
        click.echo(f"{name} | {key} | {value['within']['score']:.1f}, {value['whole']['score']:.1f}")

    spread = first[:, JOINTS].std(0)
    moved = spread > 1e-3  # the others are always 0
    apart = np.abs(begin(env, 0, None, None)[JOINTS] - first[:, JOINTS].mean(0))[moved] / spread[moved]
    low, high = first[:, HANDLE].min(0), first[:, HANDLE].max(0)
    handles = np.stack([begin(env, number, None, None)[HANDLE] for number in range(100)])
    results["starts"] = {"joints": int(moved.sum()), "deviations": np.sort(apart).tolist(),
                         "demonstrated_handles": [low.tolist(), high.tolist()],
                         "tasks_handles": [handles.min(0).tolist(), handles.max(0).tolist()]}
    if "replay" not in results:
        played = play(env, starts("demonstration", "demonstration"),
                      lambda _, step: raw["actions"][np.minimum(begins + step, ends)])
        add("replay", "played", scores(env, [r[:n] for r, n in zip(played, lengths, strict=True)]))
        add("replay", "recorded", scores(env, np.split(raw["rewards"], begins[1:])))
    pairs = [tuple(pair.split(":")) for pair in sources.split(",")]

    def cells(name: str, prefix: str, act: Act) -> None:
        for hand, door in pairs:
            key = f"{prefix}hand of {hand}, door of {door}"
            if key not in results.get(name, {}):
                add(name, key, scores(env, list(play(env, starts(hand, door), act))))

    episodes = np.repeat(np.arange(len(ends)), lengths)
    cells("nearest", "", nearest(raw["observations"], raw["actions"], episodes))
    if policy_name:
        policy = load_policy(policy_name)
        for n, rho in product(candidates, guidance_scales):

            def act(now: np.ndarray, step: int, n: int = n, rho: float = rho) -> np.ndarray:
                drawn = policy.sample(now, seed=step, n_candidates=n, guidance_scale=rho,
                                      temperature=0.0 if n == 1 else 1.0, select="max_weight",
                                      sampler="dpmpp_2m_sde", sampler_steps=6)
                return drawn.actions.cpu().numpy()

            cells(label, f"N {n}, guidance {rho:g}, ", act)


if __name__ == "__main__":
    run(main)
