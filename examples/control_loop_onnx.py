"""Ant Maze at a fixed rate by onnxruntime alone, and the time of a decision beside the Python policy's.

    pip install 'swg-fast[export]'
    python examples/control_loop_onnx.py --rate 20 --steps 200 --seed 0

The policy is exported for 1, 16 and 64 candidates. Each graph is timed on states that the ant passes, and
`Policy.bind` beside it on the same states, both on one thread; then the graph of `--candidates` steers the
ant. Of that loop's decisions only onnxruntime and numpy take part: a robot needs them and the exported file.

It prints a table and writes OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from swg_fast import UsageError, load_policy
from swg_fast.common.atomic_files import write_json
from swg_fast.common.console import print_table
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.hardware import set_threads
from swg_fast.common.optional_packages import need
from swg_fast.common.output_paths import check_outputs
from swg_fast.common.provenance import provenance
from swg_fast.envs import make_env
from swg_fast.policy.policy import Policy

TASK = "antmaze-umaze-v2"
SIZES = (1, 16, 64)
NOISE = {"temperature": 1.0}  # for one candidate, too


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a decision for one state, with ``candidates`` drawn."""

    candidates: int
    onnxruntime: float
    python: float


@dataclass(frozen=True)
class Drive:
    """What the loop did: its rate in decisions a second, the steps made, those whose decision came later than
    the rate asks, the slowest decision in milliseconds, and the reward."""

    rate: float
    steps: int
    late: int
    slowest: float
    reward: float


class Controller:
    """An exported graph: a state [S] in, an action [A] out."""

    def __init__(self, path: Path, seed: int) -> None:
        runtime = need("onnxruntime", "the control loop")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # a small decision is slower when it is shared
        self.session = runtime.InferenceSession(str(path), options)
        [_, noise] = self.session.get_inputs()
        self.size, self.draws = tuple(noise.shape[1:]), np.random.default_rng(seed)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        noise = self.draws.standard_normal((1, *self.size), dtype=np.float32)
        action, _, _ = self.session.run(None, {"state": state[None].astype(np.float32), "noise": noise})
        return action[0]


def median_milliseconds(decide: Callable[[np.ndarray], object], states: np.ndarray) -> float:
    """Of one decision a state, after one that warms up."""
    decide(states[0])
    spent = []
    for state in states:
        begin = time.perf_counter()
        decide(state)
        spent.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(spent))


def drive(controller: Controller, rate: float, steps: int, seed: int) -> Drive:
    """Steers the ant for ``steps`` at most, each at its time; a late decision moves the times after it."""
    env = make_env(TASK)
    state, reward, late, slowest, made = env.reset(seed), 0.0, 0, 0.0, 0
    due = time.perf_counter()
    while made < steps:
        begin = time.perf_counter()
        action = controller(state)
        slowest = max(slowest, 1e3 * (time.perf_counter() - begin))
        found, made = env.step(action), made + 1
        state, reward, due = found.observation, reward + found.reward, due + 1 / rate
        left = due - time.perf_counter()
        if left < 0:
            late, due = late + 1, due - left
        else:
            time.sleep(left)
        if found.done:
            break
    return Drive(rate, made, late, slowest, reward)


def passed_states(controller: Controller, count: int, seed: int) -> np.ndarray:
    """States [count, S] that the ant passes from its start."""
    env = make_env(TASK)
    states = [env.reset(seed)]
    while len(states) < count:
        states.append(env.step(controller(states[-1])).observation)
    return np.stack(states)


def measure(policy: Policy, controllers: dict[int, Controller], states: np.ndarray) -> list[Times]:
    """Every size's decision by both, on the same states."""
    found = []
    for n, controller in controllers.items():
        bound = policy.bind(n_candidates=n, **NOISE)
        found.append(Times(n, median_milliseconds(controller, states), median_milliseconds(
            lambda state, bound=bound: bound.sample(state, seed=0), states)))  # type: ignore[misc]
    return found


def draw(times: list[Times], drive: Drive, path: Path) -> None:
    """The times of a decision against N, and the time that the rate leaves for one."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    sizes = [each.candidates for each in times]
    axes.plot(sizes, [each.onnxruntime for each in times], "o-", color="#0072b2", label="onnxruntime")
    axes.plot(sizes, [each.python for each in times], "s--", color="#d55e00", label="Python")
    axes.axhline(1e3 / drive.rate, color="black", linewidth=1, linestyle=":",
                 label=f"{drive.rate:g} a second")
    axes.set(xscale="log", yscale="log", xlabel="candidates", ylabel="milliseconds a decision")
    axes.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axes.legend(frameon=False)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=20, help="decisions a second")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--candidates", type=int, choices=SIZES, default=16, help="of the loop's decisions")
    parser.add_argument("--states", type=int, default=30, help="states that each size is timed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="control_loop_onnx", help="the results' name, without suffix")
    options = parser.parse_args()
    if options.rate <= 0 or options.steps < 1 or options.states < 1 or options.seed < 0:
        parser.error("--rate, --steps and --states must be above 0, and --seed not below it")
    json_path, plot = Path(f"{options.out}.json"), Path(f"{options.out}.png")
    check_outputs(json=json_path, plot=plot)
    need("onnxruntime", "the control loop")
    set_threads(1)
    policy = load_policy(TASK)
    with tempfile.TemporaryDirectory() as folder:
        controllers = {n: Controller(policy.export(Path(folder) / f"{n}.onnx", n_candidates=n, **NOISE),
                                     options.seed) for n in SIZES}
    times = measure(policy, controllers, passed_states(controllers[1], options.states, options.seed))
    drove = drive(controllers[options.candidates], options.rate, options.steps, options.seed)
    write_json(json_path, {"task": TASK, "seed": options.seed, "candidates": options.candidates,
                           "times": [asdict(each) for each in times], "drive": asdict(drove),
                           "provenance": provenance()})
    print_table(f"{TASK}: milliseconds a decision", [
        (f"N = {each.candidates}", f"onnxruntime {each.onnxruntime:.2f}, Python {each.python:.2f}")
        for each in times])
    print_table(f"{options.candidates} candidates at {drove.rate:g} decisions a second", [
        ("steps", str(drove.steps)), ("late", str(drove.late)),
        ("slowest decision", f"{drove.slowest:.2f} ms"), ("reward", f"{drove.reward:g}")])
    draw(times, drove, plot)
    print(f"numbers: {json_path}   picture: {plot}")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"control_loop_onnx: {error}") from None
