"""Arguments and results of the fused kernels' launchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.shared.sampler_table import Ranking, SamplerTable, Tree


@dataclass(frozen=True)
class Asked:
    """Candidates ``first`` .. ``first`` + ``n_candidates`` - 1 of every state, drawn with ``seed``, and the
    selection among them. With a ``tree`` both numbers are multiples of its leaves. A ``ranking`` selects
    instead of the weight. Without a ``config`` the tuned one or the table's default runs."""

    n_candidates: int
    seed: int
    first: int = 0
    softmax: bool = False
    selection_temperature: float = 1.0
    return_candidates: bool = False
    tree: Tree | None = None
    ranking: Ranking | None = None
    config: Config | None = None


class Work(NamedTuple):
    """What decides how fast a configuration is, beside the device and the network: the states and the
    candidates of each, whether the sampler is guided and whether it reads the last x0, a root's leaves (0: no
    tree) and a ranking's draws (0: none)."""

    states: int
    candidates: int
    guided: bool
    multistep: bool = False
    leaves: int = 0
    draws: int = 0

    @classmethod
    def of(cls, states: int, asked: Asked, table: SamplerTable) -> Work:
        """That of a call for so many ``states``."""
        return cls(states, asked.n_candidates, table.guided, table.multistep,
                   asked.tree.leaves if asked.tree is not None else 0,
                   asked.ranking.draws if asked.ranking is not None else 0)

    @property
    def plain(self) -> bool:
        """Whether it has neither a tree nor a ranking."""
        return self.leaves == 0 and self.draws == 0


class Drawn(NamedTuple):
    """The kept actions [B, A], weights [B], indices [B]. On request, also all candidates ``z`` [B, N, D],
    their ``candidate_weights`` [B, N] and, with a ranking, their expected weights [B, N]. ``finite``: whether
    all kept actions and weights and all candidates' actions are; None where the launch has not looked."""

    actions: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    z: torch.Tensor | None = None
    candidate_weights: torch.Tensor | None = None
    expected: torch.Tensor | None = None
    finite: bool | None = None


class Weights(NamedTuple):
    """A network's weights in the order of the kernels' arguments. A `joint` head's last four are not read."""

    input_z: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    head: torch.Tensor
    head_bias: torch.Tensor
    head_output: torch.Tensor
    head_output_bias: torch.Tensor


class Shape(NamedTuple):
    """A network's shape under the names of the kernels' constants: D entries of z, padded to DP, hidden size
    H, L blocks, an early head E wide (0 for none)."""

    D: int
    DP: int
    H: int
    L: int
    E: int
    EARLY: bool
    LN_EPS: float
    PRECISION: str


class ScratchSizes(NamedTuple):
    """A running program's elements in the two scratch buffers, under the names of the kernels' constants: LOW
    in the weights' type, WIDE in float32."""

    LOW: int
    WIDE: int
