"""What a training has learnt, as figures and pictures: value, advantages, predicted weights, losses."""

from swg_fast.evaluation.inspect.run import inspect_run

__all__ = ["inspect_run"]
