"""The pages' tables."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks import (
    auto_candidates,
    beside_report,
    decisions_report,
    door,
    environments,
    experiment_tables,
    gpu_table,
    guidance_interval,
    host_time,
    reliability,
    score_table,
    scorers,
    sharing,
    students,
    training_run,
)
from benchmarks.bench_table import markdown as bench_markdown
from benchmarks.pages.blocks import BLOCKS, block, recorded
from benchmarks.pages.gpu import kernels_alone
from swg_fast.common.settings_fields import table
from swg_fast.policy.sampling import Execution, SamplingConfig

RECORDS = {"sampling": SamplingConfig, "execution": Execution}
GPU = "nvidia-h200/gpu.json"
H200_PROCESSORS, H200_MHZ = 132, 1800  # the clock at which docs/kernel-notes.md compares model and counters
BESIDE_STUDENTS = ("eager", "ours", "dpmpp_2m 8", "tree", "student", "student fp32", "draft and finish")


class Call(NamedTuple):
    """A call of the Gluon kernel: of its ``steps`` so many are ``guided``."""

    states: int
    candidates: int
    steps: int
    guided: int


CALLS = (Call(1, 2**16, 15, 15), Call(1, 2**16, 15, 8), Call(2**12, 16, 15, 15), Call(2**16, 1, 15, 15),
         Call(1, 2**17, 1, 0), Call(2**20, 1, 1, 0))
GPU_TABLES = {"throughput": gpu_table.throughput, "peers": gpu_table.peers, "few": gpu_table.few,
              "configurations": gpu_table.configurations, "training": gpu_table.training}


BLOCKS.update({
    "bench": lambda: bench_markdown(recorded("cpu-bench.json")),
    "scores": lambda name: score_table.markdown(recorded(f"scores/{name}.json")["rows"]),
    "students": lambda: students.markdown(students.scores()),
    "scorers": lambda: scorers.markdown(recorded("scorers.json")["tasks"]),
    "auto-candidates": lambda: auto_candidates.markdown(auto_candidates.judgements()),
    "ranking-times": lambda: students.ranking_times(recorded("ranking-times.json")),
    "student-times": lambda: decisions_report.times(recorded("decisions-umaze.json"), BESIDE_STUDENTS),
    "walks": lambda name: score_table.walks(score_table.WALKS / name),
    "decisions": lambda name: decisions_report.markdown(recorded(f"decisions-{name}.json")),
    "gpu-measured": lambda name: GPU_TABLES[name](recorded(GPU)),
    "beside-swg-jax": lambda: beside_report.markdown(recorded("beside-swg-jax.json")["runs"]),
    "door-table": lambda: door.markdown(recorded("door.json")),
    "toy-interval": lambda: guidance_interval.markdown(recorded("toy-interval.json")["rows"]),
    "sharing": lambda: sharing.markdown(recorded("sharing.json")["rows"]),
    "host-time": lambda: host_time.markdown(recorded("host-time.json")["rows"]),
    "environments-table": lambda: environments.markdown(recorded("environments.json")),
    "reliability-table": lambda: reliability.markdown(recorded("reliability.json")),
    "training-tables": lambda: training_run.markdown(recorded("training.json")),
    # The last argument, table or picture, is optional; without it both are made.
    "experiment": lambda name, view, metric, only="": experiment_tables.place(name, int(view), metric, only),
    "settings": lambda record: table(RECORDS[record]),
})


@block
def toy_steps() -> str:
    """Distance to the target by the solver's number of steps, a row for each data set."""
    found = {name: recorded(f"toy-{name}-dpmpp_2m_sde.json")["distances_by_steps"]
             for name in ("gaussians8", "spiral")}
    steps = list(found["spiral"])
    rows = [f"| {name} | " + " | ".join(f"{each['guided_to_target']:.4f}" for each in by.values()) + " |"
            for name, by in found.items()]
    return "\n".join([f"| data, guided to target, by steps | {' | '.join(steps)} |",
                      "|---" * (len(steps) + 1) + "|", *rows])


@block
def predicted_shapes() -> str:
    """Rates that the static model predicts of the Gluon kernel on an H200, in calls of several shapes."""
    cycles = {(row["config"]["mixed"], row["config"]["guided"]): row["predicted_thousand_cycles"]["total"]
              for row in recorded("kernels-shapes.json")}
    lines = ["| states x candidates | sampler | thousand cycles a step of 128 | M candidates/s |",
             "|---" * 4 + "|"]
    for call in CALLS:
        guided, plain = (cycles[call.states > 1, one] for one in (True, False))
        step = (call.guided * guided + (call.steps - call.guided) * plain) / call.steps
        every = call.states * call.candidates
        turns = -(-every // (128 * H200_PROCESSORS))
        rate = every * H200_MHZ / (turns * call.steps * step * 1000)
        sampler = f"{call.steps} steps, {call.guided} guided" if call.steps > 1 else "1 step, unguided"
        lines.append(f"| {call.states:,} x {call.candidates:,} | {sampler} | {step:.1f} | {rate:.1f} |")
    return "\n".join(lines)


@block
def predicted_few() -> str:
    """Milliseconds of the layered kernels for 1,024 candidates: their launches, each at its measured share of
    the decision that was measured on an H200."""
    launches = recorded("host-time.json")["launches"]
    each = kernels_alone() / launches["15 steps, guided"]
    lines = ["| one state, 1,024 candidates | launches | predicted ms, kernels alone |", "|---" * 3 + "|"]
    lines += [f"| {walk} | {count} | {count * each:.2f} |" for walk, count in launches.items()]
    return "\n".join(lines)


@block
def toy_distances() -> str:
    """Distances by DDPM, a row for each data set."""
    columns = ("guided_to_target", "unguided_to_target", "unguided_to_data", "floor")
    lines = ["| data | " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---" * 5 + "|"]
    for name in ("gaussians8", "spiral"):
        distances = recorded(f"toy-{name}.json")["distances"]
        lines.append(f"| {name} | " + " | ".join(f"{distances[column]:.4f}" for column in columns) + " |")
    return "\n".join(lines)


@block
def predicted_kernels() -> str:
    """Resources and predicted cost, by the static model, of the kernels for many candidates."""
    lines = ["| kernel | hidden, head | tile x chunk, warps, stages | registers | stack bytes | shared bytes "
             "| predicted | tensor cores | L2 | special functions | issue |", "|---" * 11 + "|"]
    rows = [row for row in recorded("kernels.json") if row.get("predicted_thousand_cycles")]
    for row in sorted(rows, key=lambda row: (row["config"]["hidden_dim"], "Gluon" in row["kernel"])):
        time, config = row["predicted_thousand_cycles"], row["config"]
        least = " | ".join(str(time["at_least"][pipe]) for pipe in ("tensor", "l2", "special", "issue"))
        lines.append(f"| {'Gluon' if 'Gluon' in row['kernel'] else 'portable'} | {config['hidden_dim']}, "
                     f"`{config['head']}` | {config['tile']} x {config['chunk']}, {config['warps']}, "
                     f"{config['stages']} | {row['registers']} | {row['stack_bytes']} | "
                     f"{row['shared_bytes']:,} | {time['total']} | {least} |")
    return "\n".join(lines)
