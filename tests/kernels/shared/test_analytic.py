"""The analytic gradient against autograd."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast.kernels.shared.analytic import eps_and_weight_vjp
from swg_fast.kernels.shared.packing import pack

SHAPES = [(hidden, blocks, head, S, A)
          for head in ("early", "joint")
          for hidden, blocks, S, A in ((64, 3, 5, 2), (64, 2, 0, 8), (128, 6, 29, 24), (256, 3, 29, 8),
                                       (64, 1, 11, 3), (64, 4, 11, 31))
          if not (head == "early" and blocks == 1)]


@pytest.mark.parametrize("M", [1, 33], ids="M{}".format)
@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-5), (torch.float64, 1e-10)],
                         ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "H{}-L{}-{}-S{}-A{}".format(*s))
def test_equals_autograd(shape, dtype, bound, M):
    hidden, blocks, head, S, A = shape
    network = make_network(S, A, hidden, blocks, head, seed=blocks)
    packed = pack(network, 15, dtype)
    wide = network.double()
    generator = torch.Generator().manual_seed(M)
    z = torch.randn(M, A + 1, dtype=torch.float64, generator=generator)
    s = torch.randn(M, S, dtype=torch.float64, generator=generator)
    for t in (0, 14):
        leaf = z.clone().requires_grad_(True)
        expected = wide(leaf, s, torch.tensor(t))
        (gradient,) = torch.autograd.grad(expected[:, -1].sum(), leaf)
        base = packed.hoist_states(s) + packed.time_table[t]
        eps, vjp = eps_and_weight_vjp(packed, z.to(dtype), base)
        assert relative_error(eps, expected.detach()) < bound
        assert relative_error(vjp, gradient) < bound
        unguided, none = eps_and_weight_vjp(packed, z.to(dtype), base, guided=False)
        assert none is None
        assert relative_error(unguided, expected.detach()) < bound


def test_flops_count_follows_the_layers():
    """94 MFLOP a guided `joint` candidate and 82 an `early` one at the paper's sizes."""
    joint = pack(make_network(29, 8, 256, 3, "joint"), 15).flops_per_candidate(True)
    early = pack(make_network(29, 8, 256, 3, "early"), 15).flops_per_candidate(True)
    assert 94e6 < joint < 96e6
    assert 82e6 < early < 84e6
