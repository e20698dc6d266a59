"""Figures measured on a GPU, for sentences of README.md and docs/kernel-notes.md."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.blocks import block, recorded

Rows = dict[tuple[Any, ...], dict[str, Any]]


def part(name: str) -> Any:
    """The H200's results of one part of benchmarks/gpu.py."""
    return recorded("nvidia-h200/gpu.json")[name]["found"]


def decisions(name: str) -> Rows:
    """Backend, type and N -> row of a part that has whole decisions."""
    return {(row["backend"], row["dtype"], row["n_candidates"]): row for row in part(name)["results"]}


def ours(n: int) -> dict[str, Any]:
    """The fused kernel's row at N = ``n``."""
    return decisions("throughput")["triton", "bf16", n]


def few(name: str = "few") -> dict[tuple[str, int], float]:
    """Sampler and N -> milliseconds by the layered kernels."""
    return {(row["sampler"], row["n_candidates"]): row["layers"] for row in part(name)}


def steps_a_second(name: str, phase: str, batch: int) -> float:
    return next(row["swg_fast"] for row in part(name) if (row["phase"], row["batch"]) == (phase, batch))


@block
def gpu_speed() -> dict[str, Any]:
    times = few()
    return {"low": ours(2**14)["percent_of_ceiling"], "high": ours(2**20)["percent_of_ceiling"],
            "mib": part("memory")[str(2**20)] / 2**20, "ddpm_64": times["ddpm", 64],
            "six_64": times["dpmpp_2m_sde", 64], "ddpm_1024": times["ddpm", 1024],
            "six_1024": times["dpmpp_2m_sde", 1024]}


@block
def gpu_ceilings() -> dict[str, Any]:
    found = part("ceilings")
    return {kind: found[f"{kind}_flops"] / 1e12 for kind in ("bf16", "tf32", "fp32")} | {
        "copies": found["copy_bytes_per_second"] / 1e12}


@block
def gpu_goals() -> dict[str, Any]:
    early = next(row for row in part("early")["results"] if row["backend"] == "triton")
    peers, times = decisions("peers"), few()
    mine = peers["triton", "bf16", 2**17]["milliseconds"]
    others = {"jax_bf16": ("jax", "bf16"), "jax_fp32": ("jax", "fp32"), "swg_jax": ("swg-jax", "fp32"),
              "compiled": ("compile", "bf16")}
    return {"rate_17": ours(2**17)["candidates_per_second"] / 1e6,
            "rate_20": ours(2**20)["candidates_per_second"] / 1e6,
            "rate_early": early["candidates_per_second"] / 1e6,
            "eager": ours(2**17)["speedup_over_reference"], "eager_early": early["speedup_over_reference"],
            "memory": part("memory")[str(2**20)] / 1e6, "ddpm": times["ddpm", 1024],
            "six": times["dpmpp_2m_sde", 1024], "alone": kernels_alone()} | {
        name: peers[*key, 2**17]["milliseconds"] / mine for name, key in others.items()}


def kernels_alone() -> float:
    """The fastest layered configuration's milliseconds at N = 1,024."""
    return min(row["milliseconds"] for row in part("layered") if row["n_candidates"] == 1024)


@block
def gpu_many() -> dict[str, Any]:
    """Counters, and Triton 3.6's version of the kernel, by trips of a warp group's loops."""
    busy, found = part("counters"), recorded("kernels-triton-3.6.json")
    rows = {"before": found["before"], "now": found["now"],
            "newest": [row for row in recorded("kernels.json")
                       if "Gluon" in row["kernel"] and row["config"]["hidden_dim"] == 256]}
    forward, back = ({name: next(loop for row in each if row["config"]["head"] == "joint"
                                 for loop in row["matrix_loops"] if loop["products"] == products)
                      for name, each in rows.items()} for products in (2.0, 3.0))
    times = {name: decisions(which)["triton", "bf16", 2**17]["milliseconds"]
             for name, which in (("slow", "peers before"), ("three_nine", "throughput, Triton 3.9"),
                                 ("peers", "peers"))}
    words = {2: "two", 3: "three"}
    more, more_back = (words[loops["now"]["barriers"] - loops["newest"]["barriers"]]
                       for loops in (forward, back))
    return times | {
        "low": ours(2**14)["percent_of_ceiling"], "high": ours(2**20)["percent_of_ceiling"],
        "tensor": busy["tensor cores"], "shared": busy["shared memory and L1"], "l2": busy["L2"],
        "throughput": ours(2**17)["milliseconds"], "waits": forward["before"]["waits_for_products"],
        "waits_now": forward["newest"]["waits_for_products"], "more": more, "more_back": more_back}


@block
def gpu_few() -> dict[str, Any]:
    other = few("few, another host")
    return {"other": other["ddpm", 1024], "other_six": other["dpmpp_2m_sde", 1024], "alone": kernels_alone(),
            "throughput": ours(1024)["milliseconds"],
            "peers": decisions("peers")["triton", "bf16", 1024]["milliseconds"]}


@block
def gpu_training() -> dict[str, Any]:
    return {"masks_before": steps_a_second("training before", "actor", 1024)}


@block
def gpu_changes() -> dict[str, Any]:
    every = {f"{phase}{when}": steps_a_second(name, phase, batch)
             for phase, batch in (("critic", 256), ("actor", 1024))
             for when, name in (("", "training"), ("_before", "training, PyTorch's Adam"))}
    return every | {"masks_before": steps_a_second("training before", "actor", 1024)}


@block
def gpu_model() -> dict[str, Any]:
    """Thousand cycles of a step: by the static model, and by the counter over the steps of a launch."""
    busy = part("counters")
    steps = 15 * -(-busy["n_candidates"] // (132 * 2 * 64))
    model = next(row["predicted_thousand_cycles"]["total"]
                 for row in recorded("kernels-triton-3.6.json")["now"] if row["config"]["head"] == "joint")
    counted = busy["cycles"] / steps / 1e3
    return {"model": model, "counted": counted, "low": 100 * (1 - model / counted)}
