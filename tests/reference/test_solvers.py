"""The solvers where the exact answer is known: data N(0, c**2), whose clean sample is a multiple of z."""

from __future__ import annotations

import math

import pytest
import torch

from swg_fast import NoiseSchedule, UsageError, reference
from swg_fast.method.sampler_names import SAMPLERS
from swg_fast.method.samplers import evenly_spaced, sampler_table

SPREAD = 0.3


def walk(sampler, schedule, count, z, noise=None):
    """z at trained step 0, with the best possible network for that data."""
    steps = reference.spaced_steps(schedule.num_steps, count)
    last = None
    for i, t in enumerate(steps[:-1]):
        bar = float(schedule.alphas_cumprod[t])
        clean = math.sqrt(bar) * SPREAD**2 / (bar * SPREAD**2 + 1 - bar) * z
        z, last = reference.solver_step(sampler, schedule, z, clean, t, steps[i + 1],
                                        None if noise is None else noise[i], 1.0, last), (t, clean)
    return z


def deviation(schedule, t):
    bar = float(schedule.alphas_cumprod[t])
    return math.sqrt(bar * SPREAD**2 + 1 - bar)


@pytest.mark.parametrize("sampler,order", [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(sampler, order):
    """The exact path scales z by the marginal deviation: twice the steps, 2**order less error."""
    schedule = NoiseSchedule.vp(1601)
    exact = deviation(schedule, 0) / deviation(schedule, 1600)
    z = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(float(walk(sampler, schedule, n, z)) - exact) for n in (41, 81, 161)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_the_stochastic_solver_keeps_the_marginal():
    """A linear network makes z a sum of independent draws, a vector of their coefficients here, whose
    length is z's deviation; the error falls with the square of the steps."""
    schedule, errors = NoiseSchedule.vp(1601), []
    for n in (101, 201, 401):
        draws = torch.eye(n, dtype=torch.float64)
        z = walk("dpmpp_2m_sde", schedule, n, deviation(schedule, 1600) * draws[-1], draws)
        errors.append(abs(float(z.norm()) - deviation(schedule, 0)))
    assert errors[-1] < 0.01 * deviation(schedule, 0)
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("T", [1, 2, 3, 7, 15])
def test_spaced_steps(T):
    for n in range(1, T + 1):
        steps = reference.spaced_steps(T, n)
        assert steps == sorted(set(steps), reverse=True) and len(steps) == n
        assert steps[0] == T - 1 and (n == 1 or steps[-1] == 0)
        assert evenly_spaced(T, n) == tuple(reversed(steps))
    assert reference.spaced_steps(15, 6) == [14, 11, 8, 6, 3, 0]


@pytest.mark.parametrize("sampler,count,word", [
    ("ddim", 0, "1..15"), ("dpmpp_2m", 16, "1..15"), ("ddpm", 6, "walks all 15"),
    ("ddpm_x0", 14, "dpmpp_2m_sde for fewer")])
def test_bad_numbers_of_steps(schedule, sampler, count, word):
    with pytest.raises(UsageError, match=word):
        sampler_table(sampler, schedule, count, guidance_scale=1.0, temperature=1.0)


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.fewer_steps])
def test_what_a_table_says_of_itself(schedule, sampler):
    table = sampler_table(sampler, schedule, 6, guidance_scale=1.0, temperature=1.0)
    assert table.steps == (0, 3, 6, 8, 11, 14) and table.trained_steps == 15
    assert table.multistep == (sampler != "ddim")
    noise = [table.row(j)["noise"] for j in range(6)]
    assert noise[0] == 0 and all((x > 0) == (sampler == "dpmpp_2m_sde") for x in noise[1:])
    last = table.row(0)  # the clean sample, and nothing else
    assert last["clean"] == 1 and last["state"] == last["epsilon"] == last["previous"] == 0
    assert sampler_table("ddpm", schedule, 15, guidance_scale=1.0, temperature=1.0).num_steps == 15
