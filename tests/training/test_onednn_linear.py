"""Training's products through oneDNN equal `nn.Linear`'s, including parameters and checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast.kernels.cpu.network_onednn import has_packed_linear
from swg_fast.training.onednn_linear import OneDnnLinear, accelerate

pytestmark = pytest.mark.skipif(not has_packed_linear(), reason="this torch has no oneDNN")


def gradients(network, z, states, t):
    network.zero_grad()
    loss = network(z, states, t).square().sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("head", ["early", "joint"])
def test_losses_and_gradients_agree(head):
    plain = make_network(29, 8, 256, 3, head)
    quick = copy.deepcopy(plain)
    accelerate(quick)
    assert any(isinstance(part, OneDnnLinear) for part in quick.modules())
    generator = torch.Generator().manual_seed(0)
    z, states = torch.randn(37, 9, generator=generator), torch.randn(37, 29, generator=generator)
    t = torch.randint(15, (37,), generator=generator)
    expected, theirs = gradients(plain, z, states, t)
    loss, mine = gradients(quick, z, states, t)
    assert relative_error(loss, expected) < 1e-5
    for name, gradient in theirs.items():
        assert relative_error(mine[name], gradient) < 1e-5, name


def test_nothing_else_changes():
    network = make_network(29, 8, 256, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    accelerate(network)
    twin = copy.deepcopy(network)
    assert [type(a) for a in twin.modules()] == [type(a) for a in network.modules()]
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    layer, plain = network.blocks[0].up, torch.nn.Linear(256, 1024)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(5, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x)) and layer(x).dtype == torch.bfloat16
