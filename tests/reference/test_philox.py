"""The noise function: published test vectors, then what sampling relies on."""

from __future__ import annotations

import pytest
import torch

from swg_fast.reference import philox

# Known answers that Random123 publishes for philox4x32-10: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822,
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize("counter,key,expected", KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, expected):
    words = philox.philox_4x32(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


def test_normals_have_the_moments_of_a_normal():
    n = philox.normals(7, torch.arange(200_000), torch.tensor(3), 2, 9)
    assert n.shape == (200_000, 9)
    assert n.mean(0).abs().max() < 0.01
    assert (n.std(0) - 1).abs().max() < 0.01
    assert (n.pow(4).mean(0) - 3).abs().max() < 0.1
    correlation = torch.corrcoef(n.T) - torch.eye(9)
    assert correlation.abs().max() < 0.01


def test_a_candidate_depends_on_its_own_counter_alone():
    everything = philox.normals(1, torch.arange(100)[None], torch.arange(5)[:, None],
                                torch.tensor(4), 6)
    one = philox.normals(1, torch.tensor([37]), torch.tensor([3]), 4, 6)
    assert torch.equal(everything[3, 37], one[0])
    fewer = philox.normals(1, torch.tensor([37]), torch.tensor([3]), 4, 3)
    assert torch.equal(one[:, :3], fewer)


@pytest.mark.parametrize("change", ["seed", "seed_high", "candidate", "state", "step"])
def test_every_word_matters(change):
    base = {"seed": 1, "candidate": 2, "state": 3, "step": 4}
    other = dict(base)
    if change == "seed_high":
        other["seed"] += 1 << 40
    else:
        other[change] += 1

    def draw(c):
        return philox.normals(c["seed"], torch.tensor([c["candidate"]]), torch.tensor([c["state"]]),
                              c["step"], 8)

    assert (draw(base) != draw(other)).all()


def test_gumbel_has_its_mean():
    g = philox.gumbel(1, torch.arange(200_000), torch.tensor(0), 15)
    assert abs(float(g.mean()) - 0.5772) < 0.01
    assert torch.isfinite(g).all()
