"""A sweep's report: tables, pictures, one page, and its figures."""

from __future__ import annotations

import re

import numpy as np
import pytest
from click.testing import CliRunner
from plans import plan_of, resolved
from scipy.stats import trim_mean

from swg_fast.cli.sweep import report
from swg_fast.common.atomic_files import write_json
from swg_fast.common.errors import UsageError
from swg_fast.sweep import metrics
from swg_fast.sweep.report_page import write_report
from swg_fast.sweep.store import Store


def results(folder, rows):
    """A sweep's folder with made-up results: (task, N, training seed, scores)."""
    cells = []
    for task, n, seed, scores in rows:
        plan = plan_of(folder, f'task = "{task}"\ntrain.seed = {seed}\nevaluate.n_candidates = {n}')
        (cell,) = resolved(plan)
        found = {"scores": scores, "score": float(np.mean(scores)),
                 "episode_lengths": [10] * len(scores), "seconds": {"sampling": 1.0}}
        if task.startswith("antmaze"):
            found["successes"] = sum(score > 50 for score in scores)
        cells.append(cell)
        write_json(Store(folder / "out").cell(cell.key), cell.to_json() | {
            "result": found, "versions": {"torch": "1"}, "seconds": 2.0})
    return cells


@pytest.mark.slow
def test_report_has_tables_pictures_and_one_page(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(task, n, seed, (100 * (rng.random(8) < 0.3 + n / 100)).tolist())
            for task in ("antmaze-umaze-v2", "antmaze-large-play-v2") for n in (1, 4, 16)
            for seed in (0, 1, 2)]
    cells = results(tmp_path, rows)
    plan = plan_of(tmp_path, """title = "Score <against> N & more"
task = "hopper-medium-v2"
[[report]]
rows = "evaluate.n_candidates"
columns = "task"
metrics = ["success", "iqm"]
[[report]]
rows = "task"
columns = "evaluate.n_candidates"
metrics = ["iqm"]""")
    Store(tmp_path / "out").begin(plan, cells)
    out = CliRunner().invoke(report, [str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    folder = tmp_path / "out" / "report"
    assert {path.name for path in folder.iterdir()} == {
        "tables.md", "tables.tex", "tables.csv", "1-success.png", "1-iqm.png", "2-iqm.png", "index.html",
        "results.json"}
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "Score &lt;against&gt; N &amp; more" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # a single file, which opens from disk
    good = sum(s > 50 for task, n, _, scores in rows if (task, n) == ("antmaze-umaze-v2", 4) for s in scores)
    share = f"{100 * good / 24:.1f}"
    markdown = (folder / "tables.md").read_text()
    assert re.search(rf"^\| 4 \| {share} \[", markdown, re.M) and "24 episodes" in markdown
    assert r"N \& more" in (folder / "tables.tex").read_text()
    assert len((folder / "tables.csv").read_text().splitlines()) == 1 + 3 * 6


@pytest.mark.parametrize("length", [3, 14, 30, 60])
def test_a_legend_fits_below_its_picture(length):
    from matplotlib.figure import Figure

    from swg_fast.sweep.plots import legend_below

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for i in range(6):
        axes.errorbar([0], [i], label=f"{i} " + ("highest weight of some " * 3)[:length])
    legend = legend_below(figure, *axes.get_legend_handles_labels(), most=4, fontsize=9)
    figure.canvas.draw()
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.width > 0
    assert length > 3 or box.height < page.height / 6  # few lines if possible
    assert axes.get_window_extent().height > 0.65 * 4.4 * figure.dpi  # whatever the legend's height


def test_every_line_looks_different():
    from swg_fast.sweep.plots import COLORS, MARKERS, dash

    looks = [(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], dash(i)) for i in range(21)]
    assert len({(color, dash) for color, _, dash in looks}) == len(set(looks)) == 21


def test_a_picture_cuts_no_marker_and_names_stand_apart(tmp_path, monkeypatch):
    """A marker at 100 % has room above it; turned names end below their ticks, before the next one's."""
    from matplotlib.figure import Figure

    from swg_fast.sweep.metrics import METRICS, Estimate
    from swg_fast.sweep.plots import draw
    from swg_fast.sweep.views import Block, View

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    names = [f"dpmpp_2m_sde, {steps}" for steps in (4, 6, 8, 10, 12, 15)]
    view = View("T", "walk", None, [], ["success"], {})
    values = {(name, None): Estimate(100.0, 84.0, 100.0, 1, 20) for name in names}
    draw([Block(view, METRICS["success"], "success", "", names, [None], values)], tmp_path / "p.png")
    figure = figures[0]
    figure.canvas.draw()
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == 0 and axes.transData.transform((0, 100))[1] + 5 < axes.bbox.y1
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert label.get_window_extent().x1 < axes.transData.transform((tick + 0.5, 0))[0]


@pytest.mark.slow
def test_a_report_can_be_made_from_its_json(tmp_path):
    rows = [("hopper-medium-v2", n, seed, [30.0 + n + seed, 40.0]) for n in (1, 4) for seed in (0, 1)]
    plan = plan_of(tmp_path, 'title = "T"\ntask = "hopper-medium-v2"\n[[report]]\nrows = "n_candidates"')
    Store(tmp_path / "out").begin(plan, results(tmp_path, rows))
    write_report(tmp_path / "out")
    first, again = tmp_path / "out" / "report", tmp_path / "again"
    assert str(tmp_path) not in (first / "results.json").read_text()
    write_report(first / "results.json", again)
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in again.iterdir()} and "1-iqm.png" in names
    for name in names - {name for name in names if name.endswith(".png")}:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="not a report's results.json"):
        write_report(tmp_path / "other.json")


def test_report_of_nothing_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            write_report(folder)


@pytest.mark.slow
def test_interquartile_mean_is_resampled_within_tasks():
    """Two tasks with distant scores: resampling over both at once would give a far wider interval."""
    rng = np.random.default_rng(0)
    strata = [10 + rng.standard_normal(5), 90 + rng.standard_normal(5)]
    low, high = metrics.stratified(strata, metrics.interquartile_mean)
    value = metrics.interquartile_mean(np.concatenate(strata))
    assert value == pytest.approx(trim_mean(np.concatenate(strata), 0.25)) and low < value < high
    by_hand = [trim_mean(np.concatenate([rng.choice(part, 5) for part in strata]), 0.25) for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]), atol=0.5)
    assert high - low < 15
    assert metrics.stratified([[1.0], [2.0]], metrics.interquartile_mean) is None
    # A task with one run does not vary; only the other's is resampled.
    low, high = metrics.stratified([[0.0], [1.0, 3.0]], lambda values, axis: values.mean(axis=axis))
    assert (low, high) == pytest.approx((2 / 3, 2.0))


def test_steps_are_the_mean_of_all_episodes():
    cells = [{"task": "t", "settings": {}, "result": {"scores": [0.0] * 3, "episode_lengths": lengths}}
             for lengths in ([700, 100, 101], [50, 700, 99])]
    found = metrics.metric("steps").estimate(cells)
    assert found.value == pytest.approx(1750 / 6) and (found.runs, found.episodes) == (2, 6)
    assert found.low < found.value < found.high
    assert metrics.metric("steps").estimate([{"task": "t", "settings": {}, "result": {}}]) is None
