"""The captured step. Without a CUDA device a recording of its operators replaces the graph: like a graph, it
replays them on the same memory, and Python's computations in between are frozen."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.training import captured_step
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.critics import CriticsTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.saved_state import gather_state
from swg_fast.training.settings import TrainSettings
from swg_fast.training.step_taker import step_taker

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def record(once):
    recording = make_fx(once)()

    def replay():
        with torch.no_grad():
            recording()

    return replay


def make(phase):
    torch.manual_seed(0)
    settings = TrainSettings(critic_batch=16, actor_batch=16, dropout=0.2, actor_steps=10, ema_rate=0.1,
                             critics=3)
    kinds = {"critic": CriticTrainer, "critics": CriticsTrainer}
    if phase in kinds:
        trainer = kinds[phase](5, 2, settings, DEVICE)
        data = torch.randn(200, 14, device=DEVICE)
    else:
        network = ScoreNetwork(5, 2, 32, 2, dropout=settings.dropout)
        trainer = DiffusionTrainer(network.train(), NoiseSchedule.vp(15), settings, DEVICE)
        data = torch.randn(200, 8, device=DEVICE)
    trainer.loops = None
    draws = trainer.draw(torch.Generator().manual_seed(0), 10, len(data))
    draws = {name: tensor.to(DEVICE) for name, tensor in draws.items()}
    return trainer, data, draws.pop("rows"), draws


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["critic", "critics", "actor"])
def test_a_captured_run_is_the_eager_one(monkeypatch, phase):
    """Ten steps with different batches, noise, dropout masks and learning rates; Adam's count continues."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(captured_step, "capture", record)
    eager, data, rows, draws = make(phase)
    expected = step_taker(eager)(data, rows, draws, 0)
    captured, *_ = make(phase)
    before = {name: tensor.clone() for name, tensor in gather_state(captured).items()}
    one = {name: tensor[0] for name, tensor in (draws | captured.masks(0, 1)).items()}
    step = captured_step.captured_step(captured, data[rows[0]], one)
    after = gather_state(captured)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    losses = []
    for index in range(10):
        captured.before_step(index)
        one = {name: tensor[index] for name, tensor in draws.items()}
        one |= {name: tensor[0] for name, tensor in captured.masks(index, 1).items()}
        losses.append(step(data[rows[index]], one))
    # On a GPU captured products may sum in another order than eager ones.
    close = {"rtol": 1e-5, "atol": 1e-7} if DEVICE.type == "cpu" else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(torch.stack(losses), expected, **close)
    theirs, mine = gather_state(eager), gather_state(captured)
    assert theirs.keys() == mine.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, **close, msg=name)
    assert int(mine[next(name for name in mine if name.endswith(".step"))]) == 10
