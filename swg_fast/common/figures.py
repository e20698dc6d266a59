"""Matplotlib figures that need no display and are saved whole."""

from __future__ import annotations

import re
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


def plain(text: str) -> str:
    """``text`` as matplotlib draws it without taking dollar signs for formulas, which it may fail to parse.
    For ticks' names; `save_figure` does it for all else."""
    return re.sub(r"(?<!\\)\$", r"\$", text)
