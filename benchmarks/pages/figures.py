"""Figures within a line, and the tables that README.md and the guide share, from benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from benchmarks import beside_report, students
from benchmarks.decisions_report import points
from benchmarks.pages.blocks import FIGURES, block, recorded
from benchmarks.pages.gpu import few, part
from benchmarks.score_table import behaviour_text
from swg_fast.policy.checkpoint import CARD, find_checkpoint
from swg_fast.policy.model_card import read_card

HZ_50 = 20.0  # milliseconds


def figure(function: Callable[..., str]) -> Callable[..., str]:
    """Registers ``function`` under its name, with hyphens."""
    FIGURES[function.__name__.replace("_", "-")] = function
    return function


def scored(row: dict[str, Any]) -> str:
    """``47 [41, 53]``."""
    low, high = (round(row["interval"][end]) for end in ("low", "high"))
    return f"{row['normalized_score']:.0f} [{low}, {high}]"


@figure
def score(name: str, scale: str, n: str, select: str) -> str:
    """A cell of results/scores/NAME.json, or of a file of results/scores/walks by its path."""
    rows = [row for row in recorded(f"scores/{name}.json")["rows"]
            if (row["guidance_scale"], row["n_candidates"], row["select"]) == (float(scale), int(n), select)]
    return scored(rows[0])


@figure
def value(file: str, path: str, form: str) -> str:
    """A number of a JSON in benchmarks/results, by its keys and places joined with dots."""
    def step(found: Any, key: str) -> Any:
        return found[int(key)] if isinstance(found, list) else found[key]

    return format(reduce(step, path.split("."), recorded(file)), form)


@figure
def times_eager(task: str, name: str, n: str) -> str:
    """Eager's time of a decision divided by that of a contender, whose blanks are written as _."""
    cells = recorded(f"decisions-{task}.json")["parts"]["time"]
    ours = cells[f"{name.replace('_', ' ')} {n}"]["milliseconds"]
    times = cells[f"eager {n}"]["milliseconds"] / ours
    return f"{times:.1f}" if times < 20 else f"{times:.0f}"


@figure
def decided(task: str, name: str, n: str) -> str:
    """The score of a contender of decisions-TASK.json, with its interval; _ is a blank of its name."""
    parts = recorded(f"decisions-{task}.json")["parts"]["episodes"]
    found = next(cell for key, cell in parts.items() if key.replace(" ", "_") == f"{name}_{n}")
    low, high = (round(found["interval"][end]) for end in ("low", "high"))
    return f"{found['quality']:.0f} [{low}, {high}]"


@figure
def behaviour(task: str) -> str:
    """The score of the recorded behaviour, with the number of its episodes."""
    return behaviour_text(recorded(f"scores/{task}.json")["behaviour"])


def milliseconds(backend: str, dtype: str, n: int) -> float:
    """A decision of one state among N on a CPU, by `swg-fast bench`."""
    return next(row["milliseconds"] for row in recorded("cpu-bench.json")["results"]
                if (row["backend"], row["dtype"], row["n_candidates"], row["n_states"])
                == (backend, dtype, n, 1))


def gpu_milliseconds(backend: str, dtype: str, n: int) -> str:
    """The same on the H200; a dash where it was not measured."""
    rows = [row["milliseconds"] for row in part("peers")["results"]
            if (row["backend"], row["dtype"], row["n_candidates"]) == (backend, dtype, n)]
    return f"{rows[0]:.1f}" if rows else "-"


@block
def readme_table() -> str:
    """Scores of the bundled policies, and times of a decision beside eager PyTorch and SWG-JAX."""
    cpu, gpu = "2 cores, EPYC (Zen 5)", f"H200, {recorded('nvidia-h200/gpu.json')['peers']['commit'][:7]}"
    lines = ["| policy | N | score | here, ms | eager, ms | SWG-JAX, ms | device, commit |", "|---" * 7 + "|"]
    for task, walked in bundled().items():
        drawn = student(task)
        by = "student mean" if drawn["average_share"] else "student"
        for what, name, row in (("student", by, drawn),
                                ("diffusion model", WALKS.get(task, "ours"), walked)):
            times = " | ".join(decision_times(task, name, row["n_candidates"]))
            lines.append(f"| `{task}`, {what} | {row['n_candidates']} | {scored(row)} ({row['episodes']} "
                         f"episodes) | {times} | - | 1 core, EPYC (Zen 5) |")
    for n in (64, 1024):
        times = (milliseconds(*who, n) for who in (("cpu", "bf16"), ("reference", "fp32"),
                                                   ("swg-jax", "fp32")))
        lines.append(f"| no task, diffusion model | {n:,} | - | "
                     + " | ".join(f"{each:.0f}" for each in times) + f" | {cpu} |")
    for n in (1024, 2**17):
        found = (gpu_milliseconds(*who, n) for who in (("triton", "bf16"), ("reference", "fp32"),
                                                       ("swg-jax", "fp32")))
        lines.append(f"| no task, diffusion model | {n:,} | - | " + " | ".join(found) + f" | {gpu} |")
    return "\n".join(lines)


@block
def beside_short() -> str:
    """SWG-JAX and swg-fast among 16 candidates: score and milliseconds a step."""
    runs = recorded("beside-swg-jax.json")["runs"]
    rows = [f"| {task} | {row[0]} | {row[2]} | {row[3]} | {row[6]} |" for task in beside_report.tasks(runs)
            for row in beside_report.lines(runs, task) if row[1] == "16"]
    return "\n".join(["| task | who | keeps | score | sampling, ms (x) |", "|---" * 5 + "|", *rows])


def bundled() -> dict[str, dict[str, Any]]:
    """Task -> the row of results/scores that has its bundled policy by its own settings."""
    def row(name: str, scale: float, n: int) -> dict[str, Any]:
        return next(row for row in recorded(f"scores/{name}.json")["rows"]
                    if (row["guidance_scale"], row["n_candidates"]) == (scale, n)
                    and row["select"] in ("max_weight", "none"))

    return {"antmaze-umaze-v2": row("walks/antmaze-umaze-v2/ddpm", 1, 16),
            "antmaze-large-play-v2": row("antmaze-large-play-v2", 5, 1),
            "hopper-medium-v2": row("hopper-medium-v2", 1, 4)}


def student(task: str) -> dict[str, Any]:
    """The row of the bundled student by its own number of candidates."""
    own = read_card(find_checkpoint(task) / CARD)["sampling"]
    chosen = own["n_candidates"], own.get("average_share", 0.0)
    rows = [row for row in students.bundled()[task] if (row["n_candidates"], row["average_share"]) == chosen]
    return min(rows, key=lambda row: row["temperature"])  # one candidate has temperature 0 by default


WALKS = {"hopper-medium-v2": "solver"}  # contenders that walk as the scores' policies did, where not DDPM
TIMED = {"antmaze-umaze-v2": "decisions-umaze.json", "antmaze-large-play-v2": "student-times-large-play.json",
         "hopper-medium-v2": "student-times-hopper.json"}


def decision_times(task: str, name: str, n: int) -> list[str]:
    """Milliseconds of a decision by the contender ``name``, and by eager PyTorch; dashes where it was not
    timed."""
    cells = recorded(TIMED[task])["parts"]["time"]
    both = (cells.get(f"{which} {n}") for which in (name, "eager"))
    return ["-" if cell is None else f"{cell['milliseconds']:.2g}" if cell["milliseconds"] < 10
            else f"{cell['milliseconds']:.0f}" for cell in both]


WALKED = {"ours": "DDPM, 15 steps", "dpmpp_2m 8": "`dpmpp_2m`, 8 steps", "solver": "`dpmpp_2m_sde`, 6 steps",
          "tree": "DDPM, tree of 16 leaves", "student": "student", "eager": "eager PyTorch, DDPM, 15 steps"}


@block
def real_time() -> str:
    """Milliseconds of a decision by machine and walk; what 50 Hz allows is bold."""
    sizes = (1, 16, 64, 256, 1024)
    lines = ["| machine | walk | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
             "|---" * (len(sizes) + 2) + "|"]

    def line(machine: str, walk: str, times: dict[int, float]) -> str:
        cells = ("-" if n not in times else f"**{times[n]:.1f}**" if times[n] <= HZ_50 else f"{times[n]:.1f}"
                 for n in sizes)
        return f"| {machine} | {walk} | " + " | ".join(cells) + " |"

    found = points(recorded("decisions-umaze.json"), "states")
    for name, walk in WALKED.items():
        times = {row["n"]: row["milliseconds"] for row in found.get(name, [])}
        if times:
            lines.append(line("one core, EPYC (Zen 5)", walk, times))
    for sampler, walk in (("ddpm", "DDPM, 15 steps"), ("dpmpp_2m_sde", "`dpmpp_2m_sde`, 6 steps")):
        times = {n: took for (by, n), took in few().items() if by == sampler}
        lines.append(line("NVIDIA H200", walk, times))
    return "\n".join(lines)


@block
def output(number: str) -> str:
    """What block ``number`` of docs/start.md printed."""
    return f"```text\n{recorded('tutorial.json')['blocks'][int(number)]['output'].rstrip()}\n```"
