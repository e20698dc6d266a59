"""A student beside its teacher: where both end from the same noises, as figures and a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.errors import UsageError, reason
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.read_files import is_file, validated
from swg_fast.evaluation.inspect.measure import PART, Draws
from swg_fast.method.sampler_names import STUDENT
from swg_fast.method.student import ENTRY, StudentWalk
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.policy import Policy
from swg_fast.training.distillation.agreement import Agreement, agreement, together
from swg_fast.training.distillation.run import FOUND
from swg_fast.training.source import Source

PANELS = 8  # of the action's entries
ORANGE = "#d55e00"  # Okabe-Ito
NO_PAIRS = ("no picture: the teacher is not in this policy; inspect the run that distilled it, or a policy "
            "that holds both (swg-fast distill --with-teacher)")


@dataclass(frozen=True)
class Ends:
    """Where teacher and student end, [n, D] each: the action's entries and the weight. ``origin`` tells in
    words what they begin from."""

    teacher: np.ndarray
    student: np.ndarray
    origin: str


@dataclass(frozen=True)
class CardError:
    """What a student's card says of its error on held-out pairs."""

    pairs: int
    action_rmse: float
    action_spread: float
    weight_rmse: float
    weight_spread: float
    weight_correlation: float | None


def recorded_pairs(source: Source) -> Path | None:
    """The file in which a distillation's run kept the ends of its held-out pairs; None where it did not."""
    path = None if source.run is None else source.run / "logs" / FOUND
    return path if path is not None and is_file(path) else None


def read_ends(path: Path, width: int) -> Ends:
    """The ends in ``path``, of ``width`` D. `UsageError` where it is damaged or of another policy."""
    from safetensors import SafetensorError, safe_open

    mend = "copy the run again, or distil anew"
    try:
        with safe_open(path, framework="np") as file:
            teacher, student = (file.get_tensor(name) for name in ("teacher", "student"))
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: not readable ({reason(error)}); {mend}") from error
    if teacher.shape != (len(teacher), width) or teacher.shape != student.shape or not len(teacher):
        raise UsageError(f"{path}: teacher and student are {list(teacher.shape)} and {list(student.shape)}, "
                         f"expected [n, {width}] both; {mend}")
    if not (np.isfinite(teacher).all() and np.isfinite(student).all()):
        raise UsageError(f"{path}: has NaN or infinity; {mend}")
    return Ends(teacher, student, "held-out states")


def draw_ends(policy: Policy, walk: StudentWalk, states: np.ndarray, draws: Draws) -> Ends:
    """The ends of ``policy``'s teacher and student from the same noises of states [B, S], with the guidance
    scale that is asked for or the student's own. `UsageError` for one that it has not learnt."""
    from tqdm import tqdm

    scale = walk.default_scale if draws.guidance_scale is None else draws.guidance_scale
    walk.code(scale)
    samplers: list[dict[str, Any]] = [{"sampler": walk.sampler, "sampler_steps": walk.sampler_steps},
                                      {"sampler": STUDENT}]
    both: list[list[np.ndarray]] = [[], []]
    for i in tqdm(range(0, len(states), PART), "student and teacher", unit="part",
                  disable=not draws.progress):
        part = states[i:i + PART]
        for sampler, found in zip(samplers, both, strict=True):
            drawn = policy.sample(
                part, n_candidates=draws.n_candidates, guidance_scale=scale, temperature=1.0, select="none",
                keep_share=1.0, leaves=1, weight_clip=walk.weight_clip, weight_readout=walk.weight_readout,
                clip_denoised=walk.clip_denoised, seed=draws.seed, return_candidates=True,
                state_indices=np.arange(i, i + len(part)), **sampler)
            found.append(_ends(drawn))
    teacher, student = map(np.concatenate, both)
    return Ends(teacher, student, f"{len(states)} states of the dataset, guidance {scale:g}")


def _ends(drawn: Samples) -> np.ndarray:
    """Candidates and their weights as rows [B * n, D]."""
    candidates, weights = drawn.candidates, drawn.candidate_weights
    assert candidates is not None and weights is not None  # drawn with return_candidates
    return torch.cat([candidates, weights[..., None]], dim=-1).flatten(0, 1).cpu().numpy()


def student_figures(ends: Ends, path: Path) -> dict[str, Any]:
    """The figures of inspect.json: of all the action's entries, of each, and of the weight. Draws the picture
    into ``path``."""
    entries = [agreement(*pair) for pair in zip(ends.teacher.T, ends.student.T, strict=True)]
    draw_student(ends, entries, path)
    return {"pairs": len(ends.teacher), "from": ends.origin,
            "action": {"error": together([entry.error for entry in entries[:-1]]),
                       "spread": together([entry.spread for entry in entries[:-1]])},
            "entries": [asdict(entry) for entry in entries[:-1]], "weight": asdict(entries[-1])}


def card_figures(card: dict[str, Any]) -> dict[str, Any]:
    """What the card of a student alone has in the place of `student_figures`. `UsageError` where its record
    of the error makes no sense."""
    found = (card.get(ENTRY) or {}).get("held_out_error")
    figures: dict[str, Any] = {"from": "the card", "note": NO_PAIRS}
    if found is None:
        return figures
    error = validated(found, CardError, f"{ENTRY}.held_out_error of the card",
                      "copy the checkpoint again, or distil it anew")
    return figures | {
        "pairs": error.pairs, "action": {"error": error.action_rmse, "spread": error.action_spread},
        "weight": asdict(Agreement(error.weight_rmse, error.weight_spread, error.weight_correlation))}


def draw_student(ends: Ends, entries: list[Agreement], path: Path) -> None:
    """The student's ends against the teacher's: a panel for each of the action's entries (of more than
    `PANELS` those of the largest errors) and one for the weight."""
    D = ends.teacher.shape[1]
    shown = sorted(sorted(range(D - 1), key=lambda i: -entries[i].error)[:PANELS]) + [D - 1]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(4.6 * columns, 4 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, i in zip(panels, shown, strict=False):
        teacher, student = ends.teacher[:, i], ends.student[:, i]
        dots = ax.hexbin(teacher, student, gridsize=50, bins="log", cmap="viridis", mincnt=1)
        figure.colorbar(dots, ax=ax, label="pairs")
        edges = [teacher.min(), teacher.max()]
        ax.plot(edges, edges, color=ORANGE, linewidth=1.2)
        name = "weight" if i == D - 1 else f"entry {i} of the action"
        ax.set(xlabel="teacher", ylabel="student")
        ax.set_title(f"{name}\n{entries[i].words()}", fontsize=10)
    for ax in panels[len(shown):]:
        ax.set_axis_off()
    some = f"; the {PANELS} entries of the largest errors" if D - 1 > PANELS else ""
    figure.suptitle(f"student against teacher, {len(ends.teacher):,} pairs from {ends.origin}{some}\n"
                    "error: root mean square, of the teacher's standard deviation")
    save_figure(figure, path, dpi=120)
