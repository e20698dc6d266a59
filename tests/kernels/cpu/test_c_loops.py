"""The compiled loops of the CPU path, against autograd and the formulas that they replace."""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.cpu import c_loops
from swg_fast.kernels.cpu.network_c import NativeNetwork
from swg_fast.kernels.cpu.network_onednn import has_native_bf16, has_packed_linear
from swg_fast.kernels.shared import analytic, c_compiler
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import COLUMNS
from swg_fast.method.samplers import sampler_table
from swg_fast.reference import philox

needs_compiler = pytest.mark.skipif(c_compiler.compiler() is None or not has_packed_linear(),
                                    reason="no C compiler, or no oneDNN, on this machine")
SHAPES = [(64, 3, "early", 5, 2), (64, 1, "joint", 0, 8), (128, 6, "joint", 29, 24), (256, 3, "early", 29, 8),
          (256, 3, "joint", 29, 8), (64, 2, "early", 11, 31), (64, 4, "joint", 11, 3)]


def poisoned(network, rows, guided):
    """A tile whose buffers hold NaN, so that missing writes show."""
    tile = network.tile(rows, guided)
    for buffer in vars(tile).values():
        buffer.fill_(torch.nan)
    return tile


@needs_compiler
@pytest.mark.parametrize("M", [1, 33])
@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "H{}-L{}-{}-S{}-A{}".format(*s))
def test_equals_autograd(shape, dtype, bound, M):
    hidden, blocks, head, S, A = shape
    if dtype == torch.bfloat16 and not has_native_bf16():
        pytest.skip("this processor has no native bf16")
    module = make_network(S, A, hidden, blocks, head, seed=blocks)
    network = NativeNetwork(pack(module, 15, dtype), c_loops.library())
    wide = module.double()
    generator = torch.Generator().manual_seed(M)
    z, states = torch.randn(M, A + 1, generator=generator), torch.randn(2, S, generator=generator)
    owners = torch.arange(M) % 2
    leaf = z.double().requires_grad_(True)
    expected = wide(leaf, states[owners].double(), torch.tensor(9))
    (gradient,) = torch.autograd.grad(expected[:, -1].sum(), leaf)
    vectors = network.packed.hoist_states(states).contiguous()
    for guided in (True, False):
        tile = poisoned(network, M, guided)
        tile.z.copy_(z)
        network.eps_and_weight_vjp(tile, vectors, owners, 9, guided)
        assert relative_error(tile.eps, expected.detach()) < bound
        if guided:
            assert relative_error(tile.vjp, gradient) < bound


@needs_compiler
@pytest.mark.parametrize("D", [1, 3, 9, 32])
def test_noise_is_the_references(D):
    candidates = torch.randint(2**32, (17,), generator=torch.Generator().manual_seed(1))
    states = torch.randint(2**32, (17,), generator=torch.Generator().manual_seed(2))
    seed = 0xFEDCBA9876543210
    out = torch.full((17, D), torch.nan)
    c_loops.library().normals(17, D, candidates, states, 16, seed & 0xFFFFFFFF, seed >> 32, out)
    assert relative_error(out, philox.normals(seed, candidates, states, 16, D)) < 1e-7


@needs_compiler
@pytest.mark.parametrize("sampler", ["ddpm", "ddpm_x0", "ddim", "dpmpp_2m_sde"])
@pytest.mark.parametrize("rho", [0.0, 5.0])
def test_update_is_the_tables(sampler, rho):
    table = sampler_table(sampler, NoiseSchedule.vp(15), guidance_scale=rho, temperature=0.7)
    network = NativeNetwork(pack(make_network(2, 8, 64, 2, "joint"), 15), c_loops.library())
    z, eps, vjp, noise, last = torch.randn(5, 50, 9, generator=torch.Generator().manual_seed(0)) * 0.8
    vjp[3] = torch.nan  # a gradient that is not a number counts as zero
    for t in (0, 7, 14):
        tile = poisoned(network, 50, True)
        for buffer, value in ((tile.z, z), (tile.eps, eps), (tile.vjp, vjp), (tile.noise, noise)):
            buffer.copy_(value)
        if table.row(t)["previous"]:
            tile.clean.copy_(last)
        network.update(tile, table, t)
        new, weight, clean, _, gradient = analytic.update(
            table, t, *(part.double() for part in (z, eps, vjp, noise, last)))
        if table.multistep:
            assert relative_error(tile.clean, clean) < 1e-5
        # A step's bound: division by a clean weight near 0 magnifies its rounding.
        assert relative_error(tile.z, new) < 1e-5
        assert relative_error(tile.weight, weight) < 1e-5
        if rho:
            assert relative_error(tile.gradient, gradient) < 1e-5 and gradient.abs().max() > 0
        else:
            assert float(tile.gradient.abs().max()) == 0.0


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_silu_everywhere(dtype):
    """The whole range, including infinities and NaN, against float64: relative error, down to denormals."""
    values = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([0.0, -0.0, 1e30, -1e30])]).to(dtype)
    a, slope = values.clone(), torch.full_like(values, torch.nan)
    silu = getattr(c_loops.library(), f"silu_{c_loops.SUFFIX[dtype]}")
    silu(len(a), a, slope)
    x = values.double()
    s = torch.sigmoid(x)
    unit = 4e-7 if dtype == torch.float32 else 2**-8
    assert ((a.double() - x * s).abs() <= unit * (x * s).abs() + 1e-35).all()
    # 1 - s cancels where s is near 1, and a multiplies the remainder.
    assert ((slope.double() - (s + x * s * (1 - s))).abs() <= 5 * unit).all()
    plain = values.clone()
    silu(len(plain), plain, None)
    assert torch.equal(plain, a)
    odd = torch.tensor([math.nan, math.inf], dtype=dtype)
    silu(2, odd, None)
    assert odd[0].isnan() and odd[1] == math.inf


@pytest.mark.parametrize("head", ["early", "joint"])
def test_without_a_compiler_aten_does_the_same(head, monkeypatch):
    monkeypatch.setenv("SWG_FAST_NATIVE", "0")
    c_loops.library.cache_clear()
    try:
        policy = Policy(make_network(5, 3, 64, 3, head), NoiseSchedule.vp(5))
        states = torch.randn(2, 5, generator=torch.Generator().manual_seed(3))
        assert not isinstance(policy.backend("cpu", "fp32").network, NativeNetwork)
        got = policy.sample(states, n_candidates=37, guidance_scale=3.0, seed=4, backend="cpu", dtype="fp32")
        expected = policy.sample(states, n_candidates=37, guidance_scale=3.0, seed=4, backend="reference")
        assert torch.equal(got.indices, expected.indices)
        assert relative_error(got.actions, expected.actions) < 1e-4
    finally:
        c_loops.library.cache_clear()


@needs_compiler
def test_a_compiler_that_fails_is_named_once(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path / "cache"))
    c_loops.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no such flag"):
            assert c_loops.library() is None
        assert list((tmp_path / "cache").iterdir()) == []
    finally:
        c_loops.library.cache_clear()


def test_columns_of_the_samplers_table():
    """C names them in the table's order."""
    [names] = re.findall(r"enum \{ (SIGMA[^}]*) \}", c_loops.SOURCE.read_text())
    assert tuple(names.lower().split(", ")) == COLUMNS
