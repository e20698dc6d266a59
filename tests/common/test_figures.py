"""Pictures: the ticks of logarithmic axes, and outliers that would flatten the rest."""

from __future__ import annotations

import numpy as np
import pytest

from swg_fast.common.figures import log_scale, new_figure
from swg_fast.evaluation.inspect.draw import _without_outliers


@pytest.mark.parametrize(("values", "scale", "ticks"), [
    ([2.0, 15.0], "linear", None), ([0.0, -1.0], "linear", None), ([5.0], "linear", None),
    ([0.02, 0.9], "log", {"0.02", "0.05", "0.1", "0.2", "0.5"}),
    ([1.0, 5000.0], "log", {"1", "10", "100", "1,000"})])
@pytest.mark.parametrize("which", ["x", "y"])
def test_ticks_are_plain_numbers(which, values, scale, ticks):
    axes = new_figure(4, 3).subplots()
    axes.plot(values, values)
    log_scale(axes, which, values)
    axis = getattr(axes, f"{which}axis")
    assert axis.get_scale() == scale
    if ticks is not None:
        getattr(axes, f"set_{which}lim")(min(values), max(values))
        axes.figure.canvas.draw()
        shown = {label.get_text() for label in axis.get_ticklabels(which="both") if label.get_text()}
        assert shown >= ticks and not any("10^" in text or "e" in text for text in shown)


def test_outliers_are_left_out_and_counted():
    values = np.append(np.random.default_rng(0).uniform(0.1, 0.9, 1000), [246.0, -50.0])
    shown, words = _without_outliers(values)
    assert shown[:1000].all() and not shown[1000:].any()
    assert words == " (2 of 1,002 weights lie outside)"
    shown, words = _without_outliers(np.full(10, 0.5))
    assert shown.all() and words == ""
