"""``swg-fast bench``: backends and peers take turns, each in its own process."""

from swg_fast.evaluation.bench.plot import plot_bench
from swg_fast.evaluation.bench.run import run_bench

__all__ = ["plot_bench", "run_bench"]
