"""The table of README.md and docs/cpu-notes.md, from the JSON of `swg-fast bench`: a row for each backend, a
column for each number of candidates of one state."""

from __future__ import annotations

from typing import Any

NAMES = {"reference": "eager PyTorch with autograd", "torch": "analytic gradient, eager (`torch`)",
         "compile": "the same, `torch.compile`", "jax": "jitted JAX", "swg-jax": "SWG-JAX's own sampler",
         "cpu": "**this project's `cpu` backend**"}


def markdown(result: dict[str, Any]) -> str:
    """Candidates/s of each backend and N, and their ratio to the eager sampler's."""
    rows = {(row["backend"], row["dtype"], row["n_candidates"]): row for row in result["results"]
            if row["n_states"] == 1}
    sizes = sorted({n for *_, n in rows})
    lines = ["| guided candidates/s (x eager) | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
             "|---" * (len(sizes) + 1) + "|"]
    for backend, title in NAMES.items():
        for dtype in ("fp32", "bf16"):
            found = [rows.get((backend, dtype, n)) for n in sizes]
            if any(found):
                cells = (f"{row['candidates_per_second']:,.0f} ({row['speedup_over_reference']:.1f})"
                         if row else "-" for row in found)
                lines.append(f"| {title}, {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
