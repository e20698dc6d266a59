"""Tables and pictures that a person reads."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from swg_fast.common.console import print_table
from swg_fast.evaluation.bench import plot_bench
from swg_fast.evaluation.bench.run import Bench, Row


@pytest.mark.parametrize("width", [30, 300])
def test_nothing_of_a_table_is_cut(width, monkeypatch, capsys):
    monkeypatch.setattr("swg_fast.common.console.LOG_WIDTH", width)
    reason = "pip install 'swg-fast[video]' into /a/path/that/is/longer/than/any/line/" + "x" * 120
    print_table("info", [("d4rl antmaze", reason)])
    shown = "".join(line.split("│")[2] for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert "".join(shown.split()) == "".join(reason.split())


@pytest.mark.parametrize("sizes", [[64], [64, 256]])
def test_throughput_of_one_n_and_of_several(sizes, tmp_path, monkeypatch):
    """Bars for one N; for several, lines with every point marked."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    rows = [Row(backend, "fp32", "cpu", 1, n, candidates_per_second=1000.0 * n, milliseconds=1.0,
                milliseconds_quartiles=[1.0, 1.0], calls=1, first_call_seconds=0.1, peak_bytes=1,
                speedup_over_reference=None, gflops=2.0, percent_of_ceiling=50.0)
            for backend in ("cpu", "torch") for n in sizes]
    plot_bench(Bench(rows, [], {"fp32": 4.0}, network={}, num_steps=15, guidance_scale=5.0, repeats=1,
                     threads=1, device_name="a cpu"), tmp_path / "b.png")
    [axes] = saved[0].axes
    assert axes.get_title() == "a cpu, 1 thread"
    if len(sizes) == 1:
        assert sorted(bar.get_width() for bar in axes.patches) == [64_000, 64_000]
    else:
        marked = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
        assert [len(line.get_xdata()) for line in marked] == [2, 2]
    assert (tmp_path / "b.png").stat().st_size > 10_000
