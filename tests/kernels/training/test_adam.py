"""Adam by the kernel, under the interpreter or on a GPU, against torch.optim in double precision."""

from __future__ import annotations

import pytest
import torch
from swg_fast.kernels.training.adam import BLOCK, adam_step

from swg_fast.training.flat import FlatParameters, adam_state, take_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("size,decay,averaged", [(1, 0.0, False), (BLOCK, 0.01, True),
                                                 (2 * BLOCK + 77, 0.01, True), (BLOCK - 1, 0.0, True)])
def test_the_steps_of_torch(size, decay, averaged):
    """Five steps with other gradients and learning rates each; entries without gradient among them."""
    start = 0.01 * torch.randn(size, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.Parameter(start.double())
    optimizer = torch.optim.AdamW([exact], lr=1.0, weight_decay=decay)
    mean = torch.zeros(size, dtype=torch.float64)
    guard = torch.full((size + 64,), 7.0, device=DEVICE)  # past its end nothing is written
    parameter = torch.nn.Parameter(guard[:size])
    parameter.data.copy_(start)
    state = {"step": torch.zeros((), device=DEVICE), "exp_avg": torch.zeros(size, device=DEVICE),
             "exp_avg_sq": torch.zeros(size, device=DEVICE)}
    follows = torch.zeros(size, device=DEVICE)
    for step in range(5):
        grad = torch.randn(size, generator=torch.Generator().manual_seed(step + 1)) * 10.0 ** (step - 4)
        grad[3::7] = 0.0
        rate = 3e-4 * (step + 1)
        optimizer.param_groups[0]["lr"] = rate
        exact.grad, parameter.grad = grad.double(), grad.to(DEVICE)
        optimizer.step()
        mean.lerp_(exact.detach(), 0.3)
        adam_step(parameter, state, torch.tensor(rate, device=DEVICE), (0.9, 0.999), 1e-8, decay,
                  follows if averaged else None, 0.3)

    def close(got, expected):
        torch.testing.assert_close(got.detach().cpu().double(), expected, rtol=1e-5, atol=1e-7)

    close(parameter, exact.detach())
    assert float((exact.detach() - start).abs().max()) > 2e-4  # a step is not lost in the tolerance
    close(follows, mean if averaged else torch.zeros_like(mean))
    theirs = optimizer.state[exact]
    assert float(state["step"]) == float(theirs["step"]) == 5
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[name].cpu().double(), theirs[name], rtol=1e-5, atol=1e-12)
    assert torch.equal(guard[size:], torch.full_like(guard[size:], 7.0))


@pytest.mark.parametrize("averaged", [False, True])
def test_a_step_of_a_flat_parameter(averaged):
    """`take_step` is the optimiser's step and the average's, on whatever device."""
    torch.manual_seed(0)
    flat = FlatParameters([torch.nn.Linear(37, 11).to(DEVICE)])
    mean = FlatParameters([torch.nn.Linear(37, 11).to(DEVICE)])
    flat.data.grad.normal_()
    optimizer = torch.optim.AdamW([flat.data], lr=torch.tensor(1e-2, device=DEVICE), weight_decay=0.1,
                                  fused=True, capturable=DEVICE.type == "cuda")
    exact = torch.nn.Parameter(flat.data.detach().double())
    exact.grad = flat.data.grad.double()
    torch.optim.AdamW([exact], lr=1e-2, weight_decay=0.1).step()
    expected = mean.data.detach().double().lerp(exact.detach(), 0.25) if averaged else mean.data.clone()
    take_step(optimizer, flat, mean if averaged else None, 0.25)
    torch.testing.assert_close(flat.data.double(), exact, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mean.data.detach().double(), expected.detach().double(), rtol=1e-5, atol=1e-7)
    assert float(adam_state(optimizer)["step"]) == 1
