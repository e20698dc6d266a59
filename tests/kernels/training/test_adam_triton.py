"""Adam's kernel, under the interpreter or on a GPU, against torch.optim in double precision."""

from __future__ import annotations

import pytest
import torch

from swg_fast.kernels.training.adam_triton import BLOCK, adam_step
from swg_fast.training import flat_parameters as flats
from swg_fast.training.flat_parameters import FlatParameters, adam_state, take_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("size,decay,averaged", [(1, 0.0, False), (BLOCK, 10.0, True),
                                                 (2 * BLOCK + 77, 10.0, True), (BLOCK - 1, 0.0, True)])
def test_the_steps_of_torch(size, decay, averaged):
    """Five steps with different gradients and learning rates; some entries have no gradient."""
    start = 0.01 * torch.randn(size, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.Parameter(start.double())
    optimizer = torch.optim.AdamW([exact], lr=1.0, weight_decay=decay)
    mean = torch.zeros(size, dtype=torch.float64)
    guard = torch.full((size + 64,), 7.0, device=DEVICE)  # nothing is written past its end
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
                  follows if averaged else None, torch.tensor(0.3, device=DEVICE))

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


@pytest.mark.usefixtures("overflow_checked")
def test_it_goes_on_from_a_state_of_torchs():
    """Two steps by torch.optim and two by the kernel equal four by torch.optim."""
    start = torch.linspace(-0.01, 0.01, 200, device=DEVICE)
    grads = torch.randn(4, 200, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    kept = []
    for by_kernel in (False, True):
        parameter, rate = torch.nn.Parameter(start.clone()), torch.tensor(1e-3, device=DEVICE)
        optimizer = torch.optim.AdamW([parameter], lr=rate, weight_decay=1.0, fused=True,
                                      capturable=DEVICE.type == "cuda")
        for step, grad in enumerate(grads):
            parameter.grad = grad.clone()
            if by_kernel and step >= 2:
                adam_step(parameter, adam_state(optimizer), rate, (0.9, 0.999), 1e-8, 1.0)
            else:
                optimizer.step()
        kept.append((parameter.detach(), adam_state(optimizer)))
    (expected, theirs), (got, mine) = kept
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)
    assert float(mine["step"]) == float(theirs["step"]) == 4
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("by_kernel", [False, True])
@pytest.mark.parametrize("averaged", [False, True])
def test_a_step_of_a_flat_parameter(monkeypatch, averaged, by_kernel):
    """`take_step` equals the optimiser's step and the average's, with the kernel and without."""
    monkeypatch.setattr(flats, "runs_triton", lambda device: by_kernel)
    torch.manual_seed(0)
    flat = FlatParameters([torch.nn.Linear(37, 11).to(DEVICE)])
    mean = FlatParameters([torch.nn.Linear(37, 11).to(DEVICE)])
    flat.data.grad.normal_()
    optimizer = torch.optim.AdamW([flat.data], lr=torch.tensor(1e-2, device=DEVICE), weight_decay=3.0,
                                  fused=True, capturable=DEVICE.type == "cuda")
    exact = torch.nn.Parameter(flat.data.detach().double())
    exact.grad = flat.data.grad.double()
    torch.optim.AdamW([exact], lr=1e-2, weight_decay=3.0).step()
    expected = mean.data.detach().double().lerp(exact.detach(), 0.25) if averaged else mean.data.clone()
    take_step(optimizer, flat, mean if averaged else None, torch.tensor(0.25, device=DEVICE))
    torch.testing.assert_close(flat.data.double(), exact, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mean.data.detach().double(), expected.detach().double(), rtol=1e-5, atol=1e-7)
    assert float(adam_state(optimizer)["step"]) == 1
