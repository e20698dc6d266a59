"""The compiled steps of the diffusion against the plain ones, which autograd differentiates."""

from __future__ import annotations

import pytest
import torch
from conftest import relative_error

from swg_fast.kernels.shared.c_compiler import compiler
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.saved_state import gather_state
from swg_fast.training.settings import TrainSettings
from tests.compiled_steps import check_and_follow

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine")
# S, A, hidden, blocks, batch, head, dropout
SHAPES = [(29, 8, 256, 3, 32, "early", 0.1), (5, 2, 40, 2, 13, "early", 0.3), (0, 1, 64, 1, 1, "joint", 0.0),
          (45, 24, 136, 4, 50, "joint", 0.1)]


def make(S, A, hidden, blocks, batch, head, dropout):
    """A trainer whose LayerNorms and biases have other than their initial values, and random rows."""
    torch.manual_seed(S)
    settings = TrainSettings(actor_batch=batch, dropout=dropout, ema_rate=0.1, actor_steps=200,
                             weight_decay=0.01, weight_loss=2.5)
    network = ScoreNetwork(S, A, hidden, blocks, head, dropout=dropout)
    trainer = DiffusionTrainer(network.train(), NoiseSchedule.vp(15), settings, torch.device("cpu"))
    trainer.flat.data.data.add_(0.02 * torch.randn_like(trainer.flat.data))
    data = torch.randn(500, A + 1 + S)
    draws = trainer.draw(torch.Generator().manual_seed(0), 100, len(data))
    return trainer, data, draws.pop("rows"), draws


def plain_step(trainer, data, rows, draws, step):
    mask = {name: tensor[0] for name, tensor in trainer.masks(step, 1).items()}
    trainer.before_step(step)
    return trainer.step(data[rows[step]], {name: tensor[step] for name, tensor in draws.items()} | mask)


def quick_steps(trainer, data, rows, draws, some):
    return trainer.steps(data, rows[some], {name: tensor[some] for name, tensor in draws.items()}, some.start)


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "S{}-A{}-H{}-L{}-M{}-{}-{}".format(*s))
def test_a_hundred_steps_equal_the_plain_ones(shape):
    """Each step starts from the plain run's state; large networks take fewer steps."""
    (plain, data, rows, draws), (quick, *_) = make(*shape), make(*shape)
    for step in range(100 if shape[2] < 100 else 5):
        expected = plain_step(plain, data, rows, draws, step)
        losses = quick_steps(quick, data, rows, draws, slice(step, step + 1))
        torch.testing.assert_close(losses[0], expected, rtol=1e-5, atol=1e-6)  # of eps of size 1
        check_and_follow(plain, quick, step)


@needs_compiler
def test_every_parameters_gradient():
    """The first moment after one step is a tenth of the gradient."""
    (plain, data, rows, draws), (quick, *_) = make(*SHAPES[0]), make(*SHAPES[0])
    plain_step(plain, data, rows, draws, 0)
    quick_steps(quick, data, rows, draws, slice(0, 1))
    theirs, mine = (gather_state(t)["optimizer.actor.exp_avg"] for t in (plain, quick))
    offset = 0
    for name, parameter in plain.network.named_parameters():
        part = slice(offset, offset + parameter.numel())
        assert relative_error(mine[part], theirs[part]) < 1e-5, name
        offset += parameter.numel()
    assert offset == len(mine)


@needs_compiler
def test_runs_stay_together():
    """In several calls, without being reset to the same state in between."""
    shape = (11, 3, 64, 2, 64, "early", 0.1)
    (plain, data, rows, draws), (quick, *_) = make(*shape), make(*shape)
    expected = torch.stack([plain_step(plain, data, rows, draws, step) for step in range(100)])
    losses = torch.cat([quick_steps(quick, data, rows, draws, some)
                        for some in (slice(0, 1), slice(1, 8), slice(8, 100))])
    assert relative_error(losses, expected) < 1e-5
    assert relative_error(quick.ema_flat.data.detach(), plain.ema_flat.data.detach()) < 1e-5


@needs_compiler
def test_threads_do_not_change_a_bit():
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            trainer, data, rows, draws = make(11, 3, 96, 3, 50, "early", 0.1)
            results.append((quick_steps(trainer, data, rows, draws, slice(0, 4)), gather_state(trainer)))
    finally:
        torch.set_num_threads(before)
    for losses, state in results[1:]:
        assert torch.equal(losses, results[0][0])
        assert all(torch.equal(state[name], tensor) for name, tensor in results[0][1].items())


def test_bf16_trains_by_pytorch():
    settings = TrainSettings(precision="bf16")
    trainer = DiffusionTrainer(ScoreNetwork(5, 2, 40, 2, "early"), NoiseSchedule.vp(15), settings,
                               torch.device("cpu"))
    assert trainer.loops is None


def test_dropouts_masks_are_functions_of_the_step():
    trainer, *_ = make(3, 2, 200, 2, 64, "early", 0.25)
    keep = trainer.masks(7, 3)["keep"]
    assert keep.shape == (3, 2, 64, 200)
    assert torch.equal(trainer.masks(8, 1)["keep"][0], keep[1])
    assert abs(float(keep.float().mean()) - 0.75) < 0.01
    flat = keep.flatten(0, 1).float()
    assert float(torch.corrcoef(flat.flatten(1)).fill_diagonal_(0).abs().max()) < 0.05  # steps, blocks
    assert float(torch.corrcoef(flat.reshape(-1, 200).T).fill_diagonal_(0).abs().max()) < 0.25  # columns


def test_the_average_forgets_the_first_network():
    """It begins as the first trained network, follows ever longer, and ends at the setting's rate."""
    settings = TrainSettings(actor_steps=20_000)
    trainer = DiffusionTrainer(ScoreNetwork(5, 2, 16, 2), NoiseSchedule.vp(15), settings, torch.device("cpu"))
    rates = [trainer.ema_rate_at(step) for step in range(20_000)]
    assert rates[0] == 1.0 and rates == sorted(rates, reverse=True)
    assert rates[9989] > settings.ema_rate and set(rates[9990:]) == {settings.ema_rate}
    assert trainer.ema_rate_at(10) == 0.5


@needs_compiler
def test_after_one_step_the_average_is_the_trained_network():
    trainer, data, rows, draws = make(*SHAPES[1])
    quick_steps(trainer, data, rows, draws, slice(0, 1))
    assert relative_error(trainer.ema_flat.data.detach(), trainer.flat.data.detach()) < 1e-6
