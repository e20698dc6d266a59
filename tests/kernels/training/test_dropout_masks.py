"""The kernel's dropout masks, under the interpreter or on a GPU, against the plain ones."""

from __future__ import annotations

import pytest
import torch

from swg_fast.kernels.training import dropout_masks
from swg_fast.training.dropout import LANES, keep_masks

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.usefixtures("overflow_checked")
@pytest.mark.parametrize("seed,first,steps,blocks,rows,columns,rate", [
    (2**62 + 2**33 + 7, 5, 2, 3, 33, 256, 0.1), (3, 2**31 + 1, 1, 1, 1, 1, 0.5), (0, 0, 2, 2, 17, 133, 0.3),
    (9, 1, 1, 2, 5, 64, 0.0)])
def test_the_plain_masks(monkeypatch, seed, first, steps, blocks, rows, columns, rate):
    def poisoned(*shape, dtype, device):
        return torch.full(shape, 77, dtype=dtype, device=device)

    expected = keep_masks(seed, first, steps, blocks, rows, columns, rate, torch.device("cpu"))
    with monkeypatch.context() as patched:
        patched.setattr(dropout_masks.torch, "empty", poisoned)
        got = dropout_masks.keep_masks(seed, first, steps, blocks, rows, columns, rate, LANES, DEVICE)
    assert got.dtype == torch.bool and got.view(torch.uint8).max() <= 1
    assert torch.equal(got.cpu(), expected)
    assert expected.float().mean() == pytest.approx(1 - rate, abs=0.5 if columns == 1 else 0.03)
