"""Tiles of several states, and calls that take several launches, under Triton's interpreter or on a GPU."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICE, ddpm, make_network, poison_kernel_memory, relative_error

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.fused import launch, layout
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.fused.layout import Part, parts, plain_layout, tree_layout
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import Tree

SMALL = Config(16, 64, 4, 1)
SIZES = [(1, 1), (1, 2**32), (2**23 + 5, 1), (3, 2**22), (5000, 1000), (2, 2**31), (2**20, 3)]


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_kernel_memory(monkeypatch)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def problem(B, T=3):
    """A network for the kernels, a guided table, states and their words."""
    network = make_network(5, 3, 64, 1, "joint").to(DEVICE)
    fused = launch.KernelNetwork.lay_out(pack(network, T, torch.float32, DEVICE), "fp32")
    table = ddpm(NoiseSchedule.vp(T), 1.0, 1.0)
    return fused, table, random(B, 5), torch.arange(B, device=DEVICE) + 7


@pytest.mark.slow
@pytest.mark.usefixtures("overflow_checked")
@pytest.mark.parametrize("B,N,select", [(21, 1, "max_weight"), (9, 3, "softmax"), (3, 17, "max_weight")])
def test_states_share_tiles(monkeypatch, B, N, select):
    """States of fewer candidates than a tile has, and of more: each keeps the reference's candidate."""
    monkeypatch.setattr(launch.KernelNetwork, "config", lambda *_, **__: SMALL)
    policy = Policy(make_network(5, 3, 64, 1, "joint"), NoiseSchedule.vp(2), device=DEVICE)
    keywords = {"n_candidates": N, "guidance_scale": 1.0, "temperature": 1.0, "seed": 9, "select": select,
                "state_indices": torch.arange(B) * 1000 + 2**31, "return_candidates": True}
    expected = policy.sample(random(B, 5), backend="reference", **keywords)
    got = policy.sample(random(B, 5), backend="triton", dtype="fp32", **keywords)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < 1e-4
    tie = (got.weights - expected.weights).abs() < 1e-6  # two candidates may end in one corner
    assert ((got.indices == expected.indices) | tie).all()
    rows = torch.arange(B, device=DEVICE)
    assert torch.equal(got.actions, got.candidates[rows, got.indices])
    assert torch.equal(got.weights, got.candidate_weights[rows, got.indices])


@pytest.mark.slow
@pytest.mark.parametrize("B,N,tree,first", [
    (7, 3, None, 0), (2, 40, None, 2**32 - 20), (2, 40, Tree(4, 1), 0)])
def test_several_launches_give_what_one_does(monkeypatch, B, N, tree, first):
    """Launches of whole states, and of parts of one state's candidates. Candidates' words wrap at 2^32."""
    fused, table, states, words = problem(B)
    asked = launch.Asked(N, 9, first, return_candidates=True, tree=tree, config=SMALL)
    whole = launch.sample(fused, table, states, words, asked)
    monkeypatch.setattr(layout, "ROWS_A_LAUNCH", 16)
    assert len(list(parts(B, N))) > 1
    apart = launch.sample(fused, table, states, words, asked)
    for one, other in zip(whole[:5], apart[:5], strict=True):
        assert relative_error(other.cpu(), one.cpu()) < 1e-5


@pytest.mark.slow
def test_inputs_may_have_strides():
    """Every second word, and one word for all states."""
    fused, table, states, _ = problem(3)
    asked = launch.Asked(4, 9, return_candidates=True, config=SMALL)
    for words in (torch.arange(6, device=DEVICE)[::2], torch.tensor([5], device=DEVICE).expand(3)):
        strided = launch.sample(fused, table, torch.stack([states, states], 1)[:, 0], words, asked)
        dense = launch.sample(fused, table, states, words.clone(), asked)
        assert torch.equal(strided.z, dense.z) and torch.equal(strided.actions, dense.actions)


@pytest.mark.parametrize("B,N", SIZES)
@pytest.mark.parametrize("leaves", [1, 4])
def test_launches_take_everything_once(B, N, leaves):
    """In order, in whole roots, and so few at a time that offsets fit 32 bits: of states' vectors of 256, of
    tiles' best candidates of 32 entries, of rows."""
    if N % leaves:
        return
    state, candidate = 0, 0
    for states, first, count in parts(B, N, leaves):
        assert (states.start, first) == (state, candidate) and count % leaves == 0
        rows, size = (states.stop - states.start) * count, states.stop - states.start
        assert rows <= layout.ROWS_A_LAUNCH and size * 256 < 2**31
        for tile in (16, 128):
            made = plain_layout(rows, tile)
            assert size * made.slots(count) * 32 < 2**31 and made.items * tile < 2**31
        candidate += count
        if candidate == N:
            state, candidate = states.stop, 0
    assert state == B


def test_a_root_stays_in_one_launch():
    most = layout.MOST_LEAVES
    assert list(parts(1, 2 * most, most)) == [Part(slice(0, 1), 0, most), Part(slice(0, 1), most, most)]
    with pytest.raises(ValueError, match="leaves of a root"):
        list(parts(1, 2 * most, 2 * most))


@pytest.mark.parametrize("B,N", [(1, 5), (70, 1), (9, 3), (5, 16), (3, 17), (4, 100)])
@pytest.mark.parametrize("tile", [16, 64])
@pytest.mark.parametrize("leaves", [None, 1, 5])
def test_places_of_a_state(B, N, tile, leaves):
    """No state's candidates end in more tiles than it has places for; tiles of one state are not mixed."""
    if leaves is not None and N % leaves:
        return
    made = plain_layout(B * N, tile) if leaves is None else \
        tree_layout(B * N // leaves, Tree(leaves, 1), 3, tile, 8)
    ends = [row // made.stride * made.tiles + row % made.stride // tile for row in range(B * N)]
    for b in range(B):
        mine = ends[b * N:(b + 1) * N]
        assert mine[-1] - mine[0] < made.slots(N)
    owners = {(row // made.stride, row // N) for row in range(B * N)}
    assert made.mixed(B, N) or len(owners) == made.items
