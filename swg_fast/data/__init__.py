"""Datasets: D4RL HDF5 files and Minari datasets, as flat transitions."""

from swg_fast.data.load import load_dataset
from swg_fast.data.transitions import Transitions

__all__ = ["Transitions", "load_dataset"]
