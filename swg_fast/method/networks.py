"""The networks of SWG: the score network over [action, weight], twin Q and V, and ensembles of both."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from swg_fast.common.checks import choice, flag, number, whole
from swg_fast.common.errors import UsageError

LAYER_NORM_EPS = 1e-6  # flax's default, which the published checkpoints were trained with
EARLY_HEAD_WIDTH = 256  # width of the early weight head, whatever the trunk's
WEIGHT_HEADS = ("early", "joint")
# Sizes far beyond any use; a large machine still holds their parameters.
MOST = {"state_dim": 2**16, "action_dim": 2**12, "num_blocks": 256, "hidden_dim": 2**14,
        "time_embed_dim": 2**12, "members": 2**8}


def _size(name: str, value: int) -> int:
    """``value`` in the range of that size; a task may have no state."""
    return whole(name, value, 0 if name == "state_dim" else 1, MOST[name])


def _xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _lecun(layer: nn.Linear) -> nn.Linear:
    std = math.sqrt(1.0 / layer.in_features) / 0.87962566  # std lost to truncation at 2 sigma
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layer.bias)
    return layer


class FourierFeatures(nn.Module):
    """Learned Fourier features of the integer step: [..., 1] -> [cos f, sin f] of [..., dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(dim // 2).mul_(0.2))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        phase = 2 * math.pi * t.to(self.frequencies.dtype)[..., None] * self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


class ResidualBlock(nn.Module):
    """h + Dense_4H->H(SiLU(Dense_H->4H(LayerNorm(dropout(h)))))."""

    def __init__(self, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_dim, eps=LAYER_NORM_EPS)
        self.up = _lecun(nn.Linear(hidden_dim, 4 * hidden_dim))
        self.down = _lecun(nn.Linear(4 * hidden_dim, hidden_dim))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.down(F.silu(self.up(self.norm(self.dropout(h)))))


class ScoreNetwork(nn.Module):
    """eps_theta(z, s, t): the noise in z = [action, weight], given the state and the step.

    ``weight_head="joint"`` reads all D entries from the last block. ``"early"`` (the default, the final form
    of the authors' JAX code) reads the weight's entry from the second block through a small separate head,
    which makes its gradient cheaper.

    Raises `UsageError` for a shape that the method does not define.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        num_blocks: int = 3,
        weight_head: str = "early",
        time_embed_dim: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.state_dim = state_dim = _size("state_dim", state_dim)
        self.action_dim = action_dim = _size("action_dim", action_dim)
        self.hidden_dim = hidden_dim = _size("hidden_dim", hidden_dim)
        self.num_blocks = num_blocks = _size("num_blocks", num_blocks)
        self.weight_head = choice("weight head", weight_head, WEIGHT_HEADS)
        self.time_embed_dim = time_embed_dim = _size("time_embed_dim", time_embed_dim)
        self.dropout = dropout = number("dropout", dropout, 0.0, below=1.0)
        if time_embed_dim % 2:
            raise UsageError(f"time_embed_dim must be even, a cosine and a sine each, got {time_embed_dim}")
        if weight_head == "early" and num_blocks < 2:
            raise UsageError(
                f"weight_head={weight_head!r} with num_blocks={num_blocks}: the early head reads "
                "the second block, so use num_blocks >= 2, or weight_head='joint'"
            )

        width = 2 * time_embed_dim
        self.time_features = FourierFeatures(time_embed_dim)
        self.time_mlp = nn.Sequential(
            _xavier(nn.Linear(time_embed_dim, width)), nn.SiLU(), _xavier(nn.Linear(width, width))
        )
        self.input = _xavier(nn.Linear(self.latent_dim + state_dim + width, hidden_dim))
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_dim, dropout) for _ in range(num_blocks)
        )
        outputs = self.latent_dim if weight_head == "joint" else action_dim
        self.output = _xavier(nn.Linear(hidden_dim, outputs))
        if weight_head == "early":
            self.weight_hidden = _xavier(nn.Linear(hidden_dim, EARLY_HEAD_WIDTH))
            self.weight_output = _xavier(nn.Linear(EARLY_HEAD_WIDTH, 1))

    @property
    def latent_dim(self) -> int:
        """D = action_dim + 1: an action and its weight."""
        return self.action_dim + 1

    def config(self) -> dict[str, int | float | str]:
        """The constructor's arguments, for a checkpoint's JSON."""
        names = ("state_dim", "action_dim", "hidden_dim", "num_blocks", "weight_head",
                 "time_embed_dim", "dropout")
        return {name: getattr(self, name) for name in names}

    def time_embedding(self, t: torch.Tensor) -> torch.Tensor:
        """Embedding of integer steps ``t`` [...]: [..., 2 * time_embed_dim]."""
        return self.time_mlp(self.time_features(t))

    def forward(self, z: torch.Tensor, states: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Predicted noise [M, D] for z [M, D], states [M, S] and steps t [M] (or one step, [])."""
        embedding = self.time_embedding(torch.as_tensor(t, device=z.device))
        embedding = embedding.expand(z.shape[0], -1)
        h = self.input(torch.cat([z, states, embedding], dim=-1))
        branch = h
        for index, block in enumerate(self.blocks):
            h = block(h)
            if index == 1:
                branch = h
        eps = self.output(F.silu(h))
        if self.weight_head == "joint":
            return eps
        eps_weight = self.weight_output(F.silu(self.weight_hidden(branch)))
        return torch.cat([eps, eps_weight], dim=-1)


class StackedMLP(nn.Module):
    """``members`` networks, inputs -> hidden -> hidden -> 1 with ReLU, evaluated as one batch."""

    def __init__(self, inputs: int, hidden_dim: int, members: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim = _size("hidden_dim", hidden_dim)
        self.members = members = _size("members", members)
        sizes = (inputs, hidden_dim, hidden_dim, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            self.weights.append(nn.Parameter(torch.empty(members, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, fan_out)))

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """Every member's value, [members, B], of the same inputs [B, I] or of its own [members, B, I]."""
        x = x.expand(self.members, -1, -1)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if index < last:
                x = F.relu(x)
        return x.squeeze(-1)


class EnsembleQ(StackedMLP):
    """``members`` functions of a state and an action, such as Q(s, a)."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dim: int = 256, members: int = 2) -> None:
        self.state_dim, self.action_dim = _size("state_dim", state_dim), _size("action_dim", action_dim)
        super().__init__(self.state_dim + self.action_dim, hidden_dim, members)

    def config(self) -> dict[str, int]:
        """The constructor's arguments, for a checkpoint's JSON."""
        return {"state_dim": self.state_dim, "action_dim": self.action_dim, "hidden_dim": self.hidden_dim,
                "members": self.members}

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Every member's value, [members, B], for states [B, S] and actions [B, A]."""
        return self.values(torch.cat([states, actions], dim=-1))

    def minimum(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The lowest of the members' values, [B]."""
        return self(states, actions).amin(dim=0)


class TwinQ(EnsembleQ):
    """The critic: two Q(s, a) networks, of which the lower value counts."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dim: int = 256) -> None:
        super().__init__(state_dim, action_dim, hidden_dim)

    def config(self) -> dict[str, int]:
        """The constructor's arguments, for a checkpoint's JSON."""
        return {name: value for name, value in super().config().items() if name != "members"}


class Ranker(EnsembleQ):
    """E[w | s, a], regressed by two networks or more. As an estimate the lowest value counts, so that an
    action on which they disagree, as they do off the data, ranks low."""


class EnsembleV(StackedMLP):
    """``members`` functions V(s) of `ValueNetwork`'s form, each with a LayerNorm of its own unless ``norm``
    is false."""

    def __init__(self, state_dim: int, hidden_dim: int, members: int, norm: bool = True) -> None:
        super().__init__(state_dim, hidden_dim, members)
        self.norm = norm
        if norm:
            self.scale = nn.Parameter(torch.ones(members, 1, state_dim))
            self.shift = nn.Parameter(torch.zeros(members, 1, state_dim))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Every member's value, [members, B], of states [B, S]."""
        if self.norm:
            plain = F.layer_norm(states, states.shape[-1:], eps=LAYER_NORM_EPS)
            states = plain * self.scale + self.shift
        return self.values(states)


class ValueNetwork(nn.Module):
    """V(s): LayerNorm on the input unless ``norm`` is false, then S -> hidden -> hidden -> 1 with ReLU."""

    def __init__(self, state_dim: int, hidden_dim: int = 256, norm: bool = True) -> None:
        super().__init__()
        self.state_dim = state_dim = _size("state_dim", state_dim)
        self.hidden_dim = hidden_dim = _size("hidden_dim", hidden_dim)
        self.norm = nn.LayerNorm(state_dim, eps=LAYER_NORM_EPS) if flag("norm", norm) else nn.Identity()
        self.layers = nn.Sequential(
            _xavier(nn.Linear(state_dim, hidden_dim)), nn.ReLU(),
            _xavier(nn.Linear(hidden_dim, hidden_dim)), nn.ReLU(),
            _xavier(nn.Linear(hidden_dim, 1)),
        )

    def config(self) -> dict[str, int]:
        return {"state_dim": self.state_dim, "hidden_dim": self.hidden_dim,
                "norm": isinstance(self.norm, nn.LayerNorm)}

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Values [B] of states [B, S]."""
        return self.layers(self.norm(states)).squeeze(-1)
