"""Matplotlib figures that need no display and are saved whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import replacing


def new_figure(width: float, height: float) -> Any:
    """An empty `Figure` of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | Path, dpi: int = 130) -> None:
    """Writes ``figure``, as PNG where ``path`` has no suffix."""
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=dpi)
