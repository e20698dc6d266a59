"""The compiled critic steps against the plain ones, which autograd differentiates."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import relative_error

from swg_fast.kernels.shared.c_compiler import compiler
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.training import critic
from swg_fast.training.rewards import UNBOUNDED
from swg_fast.training.saved_state import gather_state
from swg_fast.training.settings import TrainSettings

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine")
CPU = torch.device("cpu")
CLOSE = (-0.05, 0.02)  # returns within which few of the targets below lie


def make(monkeypatch, S, A, M, H, bounds=UNBOUNDED, norm=True, **settings):
    """A trainer whose LayerNorm and biases have other than their initial values, and random rows."""
    monkeypatch.setattr(critic, "TwinQ", partial(TwinQ, hidden_dim=H))
    monkeypatch.setattr(critic, "ValueNetwork", partial(ValueNetwork, hidden_dim=H))
    torch.manual_seed(S)
    settings = TrainSettings(critic_batch=M, expectile=0.9, value_norm=norm, **settings)
    trainer = critic.CriticTrainer(S, A, settings, CPU, bounds)
    for flat in trainer.flats().values():
        flat.data.data.add_(0.02 * torch.randn_like(flat.data))
    data = torch.randn(500, 2 * S + A + 2)
    data[:, -1] = (torch.rand(500) > 0.1).float()
    return trainer, data


@pytest.mark.parametrize("S,A,M,H,bounds,norm", [
    (29, 8, 64, 256, UNBOUNDED, True), (17, 6, 37, 256, UNBOUNDED, True), (3, 1, 5, 40, UNBOUNDED, True),
    (45, 24, 16, 300, UNBOUNDED, True), (29, 8, 64, 256, CLOSE, True), (3, 1, 5, 40, CLOSE, False),
    (29, 8, 64, 256, UNBOUNDED, False)])
def test_a_hundred_steps_equal_the_plain_ones(monkeypatch, S, A, M, H, bounds, norm):
    """Each step starts from the plain run's state. Where rounding decides the sign of a ReLU's input or of an
    advantage, one row's part of a gradient differs; a free run of the plain step drifts as far from float64.
    """
    plain, data = make(monkeypatch, S, A, M, H, bounds, norm)
    quick, _ = make(monkeypatch, S, A, M, H, bounds, norm)
    rows = torch.randint(len(data), (100, M), generator=torch.Generator().manual_seed(0))
    for step in range(100):
        expected = plain.step(data[rows[step]], {})
        losses = quick.steps(data, rows[step:step + 1], {}, step)
        assert relative_error(losses[0], expected) < 1e-5
        theirs, mine = gather_state(plain), gather_state(quick)
        assert theirs.keys() == mine.keys()
        for name, tensor in theirs.items():
            if step == 0 or name.startswith("flat."):
                assert relative_error(mine[name], tensor) < 1e-5, (step, name)
            mine[name].copy_(tensor)


def test_learning_rate_falls_to_zero(monkeypatch):
    plain, data = make(monkeypatch, 5, 3, 16, 40, critic_steps=10, critic_cosine_decay=True)
    quick, _ = make(monkeypatch, 5, 3, 16, 40, critic_steps=10, critic_cosine_decay=True)
    constant, _ = make(monkeypatch, 5, 3, 16, 40, critic_steps=10)
    rows = torch.randint(len(data), (11, 16), generator=torch.Generator().manual_seed(0))
    for step in range(11):
        plain.before_step(step)
        plain.step(data[rows[step]], {})
    before = quick.value_flat.data.clone()
    quick.steps(data, rows[:1], {}, 0)
    constant.steps(data, rows[:1], {}, 0)
    assert not torch.equal(quick.value_flat.data, before)
    assert torch.equal(quick.value_flat.data, constant.value_flat.data)  # the first step has the whole rate
    quick.steps(data, rows[1:10], {}, 1)
    last = quick.value_flat.data.clone()
    quick.steps(data, rows[10:], {}, 10)
    assert torch.equal(quick.value_flat.data, last)  # the rate is 0 by then
    for name, flat in plain.flats().items():
        assert relative_error(quick.flats()[name].data.detach(), flat.data.detach()) < 1e-4, name


def test_noise_is_on_the_actions_alone(monkeypatch):
    """Steps with noise equal steps on rows with the noise added beforehand, and do not change the rows."""
    S, A, M = 5, 3, 16
    plain, data = make(monkeypatch, S, A, M, 40)
    noisy, _ = make(monkeypatch, S, A, M, 40, action_noise=0.5)
    eager, _ = make(monkeypatch, S, A, M, 40, action_noise=0.5)
    draws = noisy.draw(torch.Generator().manual_seed(0), 4, len(data))
    rows, noise = draws["rows"], draws["noise"]
    assert noise.shape == (4, M, A) and set(plain.draw(torch.Generator(), 4, 9)) == {"rows"}
    before, disturbed = data.clone(), data[rows]
    disturbed[..., 2 * S:-2] = (disturbed[..., 2 * S:-2] + 0.5 * noise).clamp(-1, 1)
    quick = noisy.steps(data, rows, {"noise": noise}, 0)
    expected = torch.stack([plain.step(disturbed[i], {}) for i in range(4)])
    each = torch.stack([eager.step(data[rows[i]], {"noise": noise[i]}) for i in range(4)])
    assert torch.equal(data, before) and relative_error(each, expected) < 1e-6
    assert relative_error(quick, expected) < 1e-5
    undisturbed = torch.stack([plain.step(data[rows[i]], {}) for i in range(4)])
    assert relative_error(undisturbed, expected) > 1e-2


def test_runs_stay_together(monkeypatch):
    """Without being reset to the same state in between."""
    plain, data = make(monkeypatch, 29, 8, 64, 256)
    quick, _ = make(monkeypatch, 29, 8, 64, 256)
    rows = torch.randint(len(data), (100, 64), generator=torch.Generator().manual_seed(0))
    expected = torch.stack([plain.step(data[one], {}) for one in rows])
    losses = torch.cat([quick.steps(data, rows[:3], {}, 0), quick.steps(data, rows[3:], {}, 3)])
    assert relative_error(losses, expected) < 1e-3
    assert float(losses[-1, 1]) < 0.8 * float(losses[0, 1])


@pytest.mark.parametrize("compiled", [False, True])
def test_targets_beyond_the_bounds_count_as_the_bounds(monkeypatch, compiled):
    """Both losses of a step, from the networks' outputs with clipping by hand; most targets lie outside."""
    S, A, M = 6, 2, 64
    trainer, data = make(monkeypatch, S, A, M, 256, CLOSE)
    s, s_next, a = data[:M, :S], data[:M, S:2 * S], data[:M, 2 * S:-2]
    with torch.no_grad():
        q, v = trainer.target.minimum(s, a), trainer.value(s)
        assert float(((q < CLOSE[0]) | (q > CLOSE[1])).float().mean()) > 0.3
        u = q.clip(*CLOSE) - v
        of_value = (torch.where(u > 0, 0.9, 0.1) * u * u).mean()
    rows = torch.arange(M)[None]
    losses = trainer.steps(data, rows, {}, 0)[0] if compiled else trainer.step(data[:M], {})
    assert relative_error(losses[0], of_value) < 1e-5
    again, _ = make(monkeypatch, S, A, M, 256, CLOSE)
    with torch.no_grad():
        v_next = trainer.value(s_next)  # Q learns from V after its step
        assert float(((v_next < CLOSE[0]) | (v_next > CLOSE[1])).float().mean()) > 0.3
        goal = data[:M, -2] + 0.99 * data[:M, -1] * v_next.clip(*CLOSE)
        of_q = (again.q(s, a) - goal).square().mean()
    assert relative_error(losses[1], of_q) < 1e-5


def test_threads_do_not_change_a_bit(monkeypatch):
    rows = torch.randint(500, (6, 50), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            trainer, data = make(monkeypatch, 11, 3, 50, 256)
            results.append((trainer.steps(data, rows, {}, 0), gather_state(trainer)))
    finally:
        torch.set_num_threads(before)
    for losses, state in results[1:]:
        assert torch.equal(losses, results[0][0])
        assert all(torch.equal(state[name], tensor) for name, tensor in results[0][1].items())


def test_without_a_compiler_the_plain_step_trains(monkeypatch, tmp_path):
    from swg_fast.kernels.training import critic as native
    from swg_fast.training.loop import LoopOptions, run_phase

    monkeypatch.setenv("SWG_FAST_NATIVE", "0")
    native.loops.cache_clear()
    try:
        trainer, data = make(monkeypatch, 5, 2, 32, 64)
        before = trainer.q_flat.data.detach().clone()
        run_phase(trainer, data, data[:0], 20, 0, LoopOptions(tmp_path, progress=False))
    finally:
        native.loops.cache_clear()
    assert trainer.loops is None
    assert int(trainer.optimizers["q"].state[trainer.q_flat.data]["step"]) == 20
    assert not torch.equal(trainer.q_flat.data, before)
