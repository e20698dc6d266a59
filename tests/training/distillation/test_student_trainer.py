"""The student's steps: the compiled ones against the plain ones, and where a student begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_students import SMALL, A, S, observations, small_data, small_teacher

from swg_fast.kernels.shared.c_compiler import compiler
from swg_fast.training.distillation.pairs import PairMaker
from swg_fast.training.distillation.run import Teaching
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.distillation.trainer import StudentTrainer, new_student
from tests.compiled_steps import check_and_follow

SETTINGS = DistillSettings(**SMALL | {"steps": 30, "ema_rate": 0.1, "weight_loss": 2.5})
KINDS = {"one call": {}, "two calls": {"calls": 2}, "a range": {"guidance_range": (0.5, 3.0)},
         "a width of its own": {"hidden_dim": 24, "num_blocks": 3}}


def make(kind):
    """A trainer, its packed pairs and its draws for 30 steps."""
    settings = replace(SETTINGS, **KINDS[kind])
    teaching = Teaching.of(small_teacher(), settings)
    maker = PairMaker(teaching.teacher, teaching.walk, observations(small_data()), settings, "train")
    model = teaching.teacher.model
    network = new_student(model.network, teaching.walk.width, settings)
    trainer = StudentTrainer(network, model.schedule, settings, torch.device("cpu"))
    packed = maker.packed(0, maker.ends(0, 200)).flatten(0, 1)
    return trainer, packed, trainer.draw(torch.Generator().manual_seed(0), 30, len(packed))["rows"]


@pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_are_the_plain_ones(kind):
    """Each compiled step begins from the plain run's state: losses, parameters, moments and the average."""
    (plain, packed, rows), (quick, *_) = make(kind), make(kind)
    for step in range(10):
        plain.before_step(step)
        expected = plain.step(packed[rows[step]], {})
        losses = quick.steps(packed, rows[step:step + 1], {}, step)
        torch.testing.assert_close(losses[0], expected, rtol=1e-5, atol=1e-6)  # of sums of size 1
        check_and_follow(plain, quick, step)


def test_the_loss_is_of_where_a_call_ends():
    """Squared errors of z + f(z) against the pair's end: the action's entries in sum, and the weight."""
    trainer, packed, rows = make("two calls")
    batch, D = packed[rows[0]], A + 1
    z, end = batch[:, :D] + batch[:, -D - 1:-1], batch[:, :D] + 2 * batch[:, -D - 1:-1]
    with torch.no_grad():
        error = (z + trainer.ema(z, batch[:, D:D + S], batch[:, -1].long()) - end).square()
    want = torch.stack([error[:, :-1].sum(1).mean(), error[:, -1].mean()])
    torch.testing.assert_close(trainer.evaluate(batch, {}), want, rtol=1e-5, atol=1e-6)
    assert len(batch[:, -1].unique()) == 2  # both calls are in a batch


def test_a_student_begins_as_its_teacher():
    """With the scale's input, which has no effect yet; a width of its own begins from its seed."""
    teacher = small_teacher().model.network
    z, states = torch.randn(7, A + 1), torch.randn(7, S)
    t = torch.full((7,), 3)
    wider = new_student(teacher, 1, SETTINGS).eval()
    assert wider.state_dim == S + 1
    for scale in (-1.0, 1.0):
        beside = torch.cat([states, torch.full((7, 1), scale)], dim=1)
        torch.testing.assert_close(wider(z, beside, t), teacher(z, states, t))
    own = [new_student(teacher, 0, replace(SETTINGS, hidden_dim=24, seed=seed)) for seed in (0, 0, 1)]
    first = [network.state_dict()["input.weight"] for network in own]
    assert first[0].shape[0] == 24 and torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    same = new_student(teacher, 0, replace(SETTINGS, hidden_dim=16, num_blocks=2))  # named, and the teacher's
    assert torch.equal(same.state_dict()["input.weight"], teacher.state_dict()["input.weight"])


def test_the_learning_rate_rises_and_falls():
    model = small_teacher().model
    trainer = StudentTrainer(model.network, model.schedule, replace(SETTINGS, steps=500), torch.device("cpu"))
    rates = [trainer.learning_rate_at(step) for step in range(501)]
    assert rates[0] == pytest.approx(1e-5) and 8e-4 < max(rates) < 1e-3
    top = rates.index(max(rates))
    assert rates[:top + 1] == sorted(rates[:top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[500] == pytest.approx(0, abs=1e-9)
