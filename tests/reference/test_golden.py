"""`reference/` against vectors recorded from the authors' JAX code, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import DATA, ddpm, relative_error

from swg_fast import reference
from swg_fast.kernels.shared import analytic
from swg_fast.kernels.shared.packing import pack
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy import swg_jax_import

CASES = sorted(path.stem for path in (DATA / "golden").glob("*.npz"))
TOLERANCE = 2e-5  # fp32, two libraries' order of summation over three blocks


def load(case: str):
    g = {k: np.asarray(v) for k, v in np.load(DATA / "golden" / f"{case}.npz").items()}
    network = swg_jax_import.score_network({k: v for k, v in g.items() if k.startswith("params/")})
    return g, network, NoiseSchedule(str(g["schedule"]), torch.from_numpy(g["betas"]))


def tensor(g, key):
    return torch.from_numpy(np.array(g[key]))


def conditioning(g, schedule, t, i):
    """How many times an error of the network's output grows in the gradient of the log weight, [M].

    The gradient divides by the clean weight, a difference of z_w and sigma eps_w, and eps_w's
    rounding error is in proportion to the whole output row that it is computed with."""
    z_w, eps, sigma = tensor(g, "z")[i][:, -1], tensor(g, "eps")[i], float(schedule.sigmas[t])
    return (z_w.abs() + sigma * eps.norm(dim=1)) / (z_w - sigma * eps[:, -1]).abs()


def gradient_error(out, g, schedule, t, i):
    """The largest row's relative error of the gradient, each divided by its row's conditioning."""
    expected = tensor(g, "grad_log_weight")[i]
    assert torch.equal(out.abs().sum(1) > 0, expected.abs().sum(1) > 0)  # the clip cuts the same rows
    size = expected.norm(dim=1).clamp(min=1e-30) * conditioning(g, schedule, t, i).clamp(min=1.0)
    return float(((out - expected).norm(dim=1) / size).max())


def settings(g):
    return {"guidance_scale": float(g["guidance_scale"]), "temperature": float(g["temperature"]),
            "weight_clip": tuple(float(x) for x in g["weight_clip"]),
            "weight_readout": "official", "clip_denoised": bool(g["clip_denoised"])}


def test_cases_are_there():
    assert len(CASES) >= 3


@pytest.mark.parametrize("case", CASES)
def test_schedule_is_the_recorded_one(case):
    g, _, _ = load(case)
    named = NoiseSchedule.by_name(str(g["schedule"]), len(g["betas"]))
    assert relative_error(named.betas, torch.from_numpy(g["betas"])) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_every_step(case):
    g, network, schedule = load(case)
    T, compared = schedule.num_steps, 0
    for i in range(T):
        t = T - 1 - i
        step = reference.guided_step(network, schedule, tensor(g, "states"), tensor(g, "z")[i], t,
                                     tensor(g, "step_noise")[i], **settings(g))
        assert relative_error(step.eps, tensor(g, "eps")[i]) < TOLERANCE
        assert relative_error(step.z, tensor(g, "z")[i + 1]) < TOLERANCE
        if np.abs(g["grad_log_weight"][i]).max() > 0:
            compared += 1
            assert gradient_error(step.grad_log_weight, g, schedule, t, i) < TOLERANCE
    assert compared >= T // 2


@pytest.mark.parametrize("case", CASES)
def test_every_step_of_the_analytic_path(case):
    g, network, schedule = load(case)
    T = schedule.num_steps
    packed = pack(network, T)
    table = ddpm(schedule, **settings(g))
    vectors = packed.hoist_states(tensor(g, "states"))
    for i in range(T):
        t = T - 1 - i
        z, _, _, eps, gradient = analytic.guided_step(packed, table, t, tensor(g, "z")[i], vectors,
                                                      tensor(g, "step_noise")[i])
        assert relative_error(eps, tensor(g, "eps")[i]) < TOLERANCE
        assert relative_error(z, tensor(g, "z")[i + 1]) < TOLERANCE
        if gradient is not None and np.abs(g["grad_log_weight"][i]).max() > 0:
            assert gradient_error(gradient, g, schedule, t, i) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_float64_is_as_near_as_the_recording(case):
    """Undivided, an ill-conditioned row of the recording is itself 1e-4 from float64; ours is no
    further than a few times that."""
    g, network, schedule = load(case)
    T = schedule.num_steps
    ours, theirs, truth = [], [], []
    wide = swg_jax_import.score_network({k: v for k, v in g.items() if k.startswith("params/")}).double()
    for i in range(T):
        t = T - 1 - i
        z, s = tensor(g, "z")[i], tensor(g, "states")
        keywords = {"weight_clip": settings(g)["weight_clip"], "weight_readout": "official"}
        ours.append(reference.log_weight_gradient(network, schedule, s, z, t, **keywords)[1])
        truth.append(reference.log_weight_gradient(wide, schedule, s.double(), z.double(), t,
                                                   **keywords)[1])
        theirs.append(tensor(g, "grad_log_weight")[i])
    mine = relative_error(torch.stack(ours), torch.stack(truth))
    recorded = relative_error(torch.stack(theirs), torch.stack(truth))
    assert mine < max(TOLERANCE, 4 * recorded)


def test_first_steps_in_sequence():
    """From the recorded start, not from each recorded step: errors grow, so only the early ones."""
    g, network, schedule = load("early_a8_s29")
    keywords = settings(g)
    noise = reference.Noise(tensor(g, "initial_noise") / keywords["temperature"],
                            tensor(g, "step_noise"))
    path = reference.sample(network, schedule, tensor(g, "states"), noise, return_trajectory=True,
                            **keywords)
    assert relative_error(path.z[:6], tensor(g, "z")[:6]) < TOLERANCE
    assert path.z.shape == tensor(g, "z").shape
    assert torch.equal(path.final, path.z[-1])


def test_critic_and_value():
    g, _, _ = load("early_a8_s29")
    states, actions = tensor(g, "states"), tensor(g, "final")[:, :-1]
    q = swg_jax_import.critic({k: v for k, v in g.items() if k.startswith("critic/")})
    v = swg_jax_import.value({k: v for k, v in g.items() if k.startswith("value/")})
    with torch.no_grad():
        assert relative_error(q(states, actions), tensor(g, "q")) < 2e-6
        assert relative_error(v(states), tensor(g, "v")) < 2e-6
