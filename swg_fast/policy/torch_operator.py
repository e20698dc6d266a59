"""The sampler as a PyTorch operator: `torch.compile` and `torch.export` pass over it."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from swg_fast.common.checks import of_kind
from swg_fast.common.errors import UsageError
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig

_SAMPLERS: WeakValueDictionary[str, Sampler] = WeakValueDictionary()
_numbers = itertools.count()


class Sampler(torch.nn.Module):
    """``policy.sample`` with a config and overrides as a module that a compiled or exported program may hold.

    Its operator is ``swg_fast::sample``. A program knows the sampler by ``name`` and holds no weights of
    it: what is loaded elsewhere finds the sampler of that name there. No gradient flows through it.
    """

    def __init__(self, policy: Policy, name: str | None = None, config: SamplingConfig | str | None = None,
                 **overrides: Any) -> None:
        super().__init__()
        of_kind("policy", policy, Policy, "give what load_policy returns")
        if name is not None:
            of_kind("name", name, str, "give a text")
        self.bound = policy.bind(config, **overrides)
        self.device, self.action_dim = policy.device, policy.action_dim
        self.name = name if name is not None else _new_name()
        if _SAMPLERS.get(self.name) is not None:
            raise UsageError(f"a sampler named {self.name!r} exists already; give another name")
        _SAMPLERS[self.name] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, or what is unpickled: it keeps its name where that is free, and else gets another."""
        super().__setstate__(state)
        if _SAMPLERS.get(self.name) is not None:
            self.name = _new_name()
        _SAMPLERS[self.name] = self

    def forward(self, states: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [B, A], weights [B] and indices [B] of states [B, S]; ``seed`` is an int64 scalar whose
        64 bits are the seed, so that another one compiles nothing anew."""
        return sample(states, seed, self.name)


def _new_name() -> str:
    return next(name for i in _numbers if (name := f"sampler {i}") not in _SAMPLERS)


def _named(name: str) -> Sampler:
    sampler = _SAMPLERS.get(name)
    if sampler is None:
        raise UsageError(f"no sampler named {name!r} in this process; make Sampler(policy, {name!r}, ...)")
    return sampler


# torch.compile must not capture the operator in a CUDA graph; torch 2.7 has no tag that says so.
UNSAFE = getattr(torch.Tag, "cudagraph_unsafe", None)
TAGS: dict[str, Any] = {"tags": (UNSAFE,)} if UNSAFE is not None else {}


@torch.library.custom_op("swg_fast::sample", mutates_args=(), **TAGS)
def sample(states: Tensor, seed: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Actions [B, A], weights [B], indices [B] by the `Sampler` of this name."""
    if seed.numel() != 1 or seed.is_floating_point():
        raise UsageError(f"seed is a {seed.dtype} tensor of shape {list(seed.shape)}; give one whole number, "
                         "such as torch.tensor(0)")
    kept = _named(name).bound.sample(states, seed=int(seed) & 2**64 - 1)
    return kept.actions, kept.weights, kept.indices


@sample.register_fake
def _shapes(states: Tensor, seed: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    sampler = _named(name)

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=sampler.device)

    count = states.shape[0]
    return new(count, sampler.action_dim), new(count), new(count, dtype=torch.int64)
