"""Weight and support together: z(log E[w]) - lambda z(error), each standardised within a state's candidates.

The error is that of the noise predicted of the re-noised action, in the action's entries: it is small where
the data are (DOSER, arXiv 2605.08202, finds actions off the data by it). The hard form is
``keep_by="support"``: it keeps the best-supported share, and ``select`` ranks among that.
"""

import torch

from swg_fast.policy.rankings.ranked import Ranked, standardised


def score(found: Ranked) -> torch.Tensor:
    assert found.support is not None
    weights = found.support.weight.clamp(min=found.config.weight_clip[0]).log()
    return standardised(weights) - found.config.support_penalty * standardised(found.support.error)
