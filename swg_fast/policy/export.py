"""A policy's decision as one file for another runtime: ONNX, or torch's own exported program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from swg_fast import __version__
from swg_fast.common.atomic_files import replacing
from swg_fast.common.checks import choice
from swg_fast.common.optional_packages import check
from swg_fast.common.output_paths import check_output
from swg_fast.common.quiet import quiet
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.policy.bound_sampler import BoundSampler
from swg_fast.policy.export_graph import Decision, FromAllNoise, FromNoise, FromSeed, example
from swg_fast.policy.export_names import FORMATS, TAKES

OUTPUTS = ("action", "weight", "index")
METADATA = "swg_fast.json"  # of a torch file


def export_decision(bound: BoundSampler, path: str | Path, *, format: str = "onnx", takes: str = "noise",
                    bounds: ActionBounds | None = None) -> Path:
    """Writes the decision of ``bound`` to ``path`` and returns it.

    format: ``onnx`` (by torch.onnx) or ``torch`` (by torch.export.save). takes: ``noise`` or ``seed``.
    bounds: the environment's, in whose units actions come out; None for [-1, 1].

    Raises `UsageError` for what has no graph, a missing package, and a path that cannot be written.
    """
    choice("format", format, FORMATS)
    choice("takes", takes, TAKES)
    if format == "onnx":
        for module in ("onnx", "onnxscript"):
            check(module, "an export to ONNX")
    check_output(path)
    decision = _module(bound, takes, bounds)
    said = described(decision, bound.model.card)
    inputs = example(decision)
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} if value.ndim else None for name, value in inputs.items()}
    with torch.no_grad(), quiet():
        program = torch.export.export(decision, (), inputs, dynamic_shapes=shapes, strict=False)
        written: Any = program
        if format == "onnx":
            written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=list(inputs),
                                        output_names=list(OUTPUTS))
            written.model.metadata_props.update(said)
    with replacing(path) as temporary, quiet():
        if format == "onnx":
            written.save(temporary, external_data=False)
        else:
            with open(temporary, "wb") as file:
                torch.export.save(written, file, extra_files={METADATA: json.dumps(said, indent=1)})
    return Path(path)


def _module(bound: BoundSampler, takes: str, bounds: ActionBounds | None) -> Decision:
    if takes == "seed":
        return FromSeed(bound, bounds)
    return (FromAllNoise if bound.plan.table.noisy else FromNoise)(bound, bounds)


def described(decision: Decision, card: Mapping[str, Any]) -> dict[str, str]:
    """What an exported file says of itself, text by name; what is no text is JSON."""
    low, high = decision.ends.tolist()
    said: dict[str, Any] = {
        "task": card.get("task"),
        "dataset": card.get("dataset"),
        "observation_keys": card.get("observation_keys"),
        "normalisation": "none: states as the environment gives them",
        "action_low": low,
        "action_high": high,
        "licence": card.get("licence") or "not stated by the policy's card",
        "swg_fast_version": __version__,
        "inputs": {name: list(value.shape[1:]) for name, value in example(decision).items()},
        "sampling": asdict(decision.plan.config),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
