"""Matplotlib figures that need no display and are saved whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import replacing


def new_figure(width: float, height: float) -> Any:
    """An empty `Figure` of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | Path, dpi: int = 130) -> None:
    """Writes ``figure``, as PNG where ``path`` has no suffix. Names in it are drawn as they are."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(plain(text.get_text()))
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=dpi)


def log_scale(axes: Any, which: str, values: Iterable[float]) -> None:
    """Gives the axis ``which``, "x" or "y", a logarithmic scale with plain numbers at its ticks: 0.1, 2, 100.
    Where the positive ``values`` span less than a factor of ten, it stays linear."""
    known = [value for value in values if value > 0]
    if not known or max(known) < 10 * min(known):
        return
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(lambda x, _: _number(x))
    few = max(known) < 100 * min(known)
    axis.set_minor_formatter(lambda x, _: _number(x) if few and f"{x:e}"[0] in "25" else "")


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 1000 else f"{x:g}"


def plain(text: str) -> str:
    """``text`` as matplotlib draws it without taking dollar signs for formulas, which it may fail to parse.
    For ticks' names; `save_figure` does it for all else."""
    return re.sub(r"(?<!\\)\$", r"\$", text)
