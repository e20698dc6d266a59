"""Datasets of D4RL, Minari and OGBench, as flat transitions."""

from swg_fast.data.load import load_dataset
from swg_fast.data.transitions import Transitions

__all__ = ["Transitions", "load_dataset"]
