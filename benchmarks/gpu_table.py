"""Tables of README.md and docs/kernel-notes.md from the results of `gpu.py` on a device."""

from __future__ import annotations

from typing import Any

from benchmarks.bench_table import NAMES

TITLES = NAMES | {"triton": "**this project's fused kernel**"}
KINDS = {"portable": "portable", "gluon": "Gluon", "layers": "layered"}


def throughput(report: dict[str, Any]) -> str:
    """Candidates/s by N, and their ratio to the eager sampler's."""
    rows = report["throughput"]["found"]["results"]
    sizes = sorted({row["n_candidates"] for row in rows})
    lines = ["| guided candidates/s (x eager) | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
             "|---" * (len(sizes) + 1) + "|"]
    for name, dtype in dict.fromkeys((row["backend"], row["dtype"]) for row in rows):
        found = {row["n_candidates"]: row for row in rows if (row["backend"], row["dtype"]) == (name, dtype)}
        cells = [_cell(found.get(n)) for n in sizes]
        lines.append(f"| {TITLES[name]}, {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    times = row["speedup_over_reference"]
    return f"{row['candidates_per_second']:,.0f}" + (f" ({times:.1f})" if times else "")


def peers(report: dict[str, Any]) -> str:
    """Milliseconds of a decision by each, and their ratio to ours."""
    rows = {(row["backend"], row["dtype"], row["n_candidates"]): row
            for row in report["peers"]["found"]["results"]}
    sizes = sorted({n for *_, n in rows})
    lines = ["| ms a decision (x ours) | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
             "|---" * (len(sizes) + 1) + "|"]
    for name, dtype in dict.fromkeys(key[:2] for key in rows):
        cells = []
        for n in sizes:
            row, ours = rows.get((name, dtype, n)), rows["triton", "bf16", n]["milliseconds"]
            cells.append(f"{row['milliseconds']:.2f} ({row['milliseconds'] / ours:.2f})" if row else "-")
        lines.append(f"| {TITLES[name]}, {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def configurations(report: dict[str, Any]) -> str:
    """Milliseconds of the kernel alone, guided at hidden size 256 in bf16, by configuration."""
    rows = [row for row in report["configurations"]["found"]
            if (row["hidden_dim"], row["dtype"], row["guided"]) == (256, "bf16", True)]
    lines = ["| N | head | kernel | tile x chunk, warps, stages | ms | M candidates/s |", "|---" * 6 + "|"]
    for row in sorted(rows, key=lambda row: (row["n_candidates"], row["head"], row["milliseconds"])):
        c = row["config"]
        lines.append(f"| {row['n_candidates']:,} | `{row['head']}` | {KINDS[c['kind']]} | "
                     f"{c['tile']} x {c['chunk']}, {c['warps']}, {c['stages']} | {row['milliseconds']:.2f} | "
                     f"{row['n_candidates'] / row['milliseconds'] / 1e3:.2f} |")
    return "\n".join(lines)


def training(report: dict[str, Any]) -> str:
    """Training steps a second, and their ratio to jitted JAX's."""
    lines = ["| phase, batch | precision | captured step | eager step | jitted JAX | captured over JAX |",
             "|---" * 6 + "|"]
    for row in report["training"]["found"]:
        lines.append(f"| {row['phase']}, {row['batch']} | {row['precision']} | {row['swg_fast']:,.0f} | "
                     f"{row['plain']:,.0f} | {row['jax']:,.0f} | {row['swg_fast'] / row['jax']:.2f} |")
    return "\n".join(lines)


def few(report: dict[str, Any]) -> str:
    """Milliseconds of a decision of few candidates, by the layered and by the portable kernels."""
    rows = report["few"]["found"]
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    names = {"ddpm": "DDPM, 15 steps", "dpmpp_2m_sde": "dpmpp_2m_sde, 6 steps"}
    kinds = [(sampler, kind) for sampler in samplers for kind in ("layers", "portable")]
    titles = {"layers": "half a block a launch", "portable": "one launch"}
    lines = ["| N | " + " | ".join(f"{names[sampler]}: {titles[kind]}" for sampler, kind in kinds) + " |",
             "|---" * (1 + len(kinds)) + "|"]
    for n in dict.fromkeys(row["n_candidates"] for row in rows):
        found = {row["sampler"]: row for row in rows if row["n_candidates"] == n}
        cells = [f"{found[sampler][kind]:.2f}" for sampler, kind in kinds]
        lines.append(f"| {n:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
