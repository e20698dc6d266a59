"""``swg-fast bench``: every backend and peer, each in a process of its own, taking turns."""

from swg_fast.evaluation.bench.plot import plot_bench
from swg_fast.evaluation.bench.run import run_bench

__all__ = ["plot_bench", "run_bench"]
