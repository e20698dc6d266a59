"""Pairs of noise and walk's end: against the reference's walks, from their numbers alone, and on disk."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace

import pytest
import torch
from conftest import relative_error
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_students import (
    SHARD,
    SMALL,
    A,
    S,
    T,
    observations,
    refused,
    small_data,
    small_teacher,
    use_small_shards,
)

from swg_fast import UsageError, reference
from swg_fast.training.distillation.pairs import BEYOND, GROUP, PairMaker, parts, student_steps
from swg_fast.training.distillation.run import Teaching
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.distillation.shards import drop_pairs, origin_of, packed_pairs
from swg_fast.training.loop import Interrupted

D = A + 1
# float32 walks of four steps against double ones.
FP32 = 1e-5
KINDS = {
    "one call": {}, "two calls": {"calls": 2}, "four calls": {"calls": 4}, "ddim": {"sampler": "ddim"},
    "all steps": {"sampler_steps": None, "calls": 2}, "a range": {"guidance_range": (0.5, 3.0)},
    "a family": {"calls": 2}, "cold": {"cold_share": 1.0, "guidance_scale": 2.0}}


def make(kind="one call", name="train", **defaults):
    """A maker of pairs of one of `KINDS`."""
    settings = DistillSettings(**SMALL | KINDS[kind])
    teaching = Teaching.of(small_teacher(kind == "a family", **defaults), settings)
    return PairMaker(teaching.teacher, teaching.walk, observations(small_data()), settings, name)


def walks(maker, drawn, first, count):
    """The reference's walks in double of pairs first .. first+count-1, group by group: latents [steps + 1,
    count, D], the last with the weight within `BEYOND` of its clip, and the states' code [count, K]."""
    teacher, walk = maker.teacher, maker.walk
    network = copy.deepcopy(teacher.model.network).double()
    found, beside = [], []
    for g in range(first // GROUP, -(-(first + count) // GROUP)):
        own = range(max(first, g * GROUP), min(first + count, (g + 1) * GROUP))
        group, rows = drawn.groups[g], maker.states[drawn.rows[list(own)]].double()
        code = teacher.family.code(group.guidance) if teacher.family is not None else torch.zeros(0)
        code = code.expand(len(rows), -1).double()
        numbers = torch.tensor(own)
        initial = reference.philox.normals(maker.seed, torch.zeros_like(numbers), numbers, T, D).double()
        noise = reference.Noise(initial, torch.zeros(walk.sampler_steps, len(rows), D, dtype=torch.float64))
        path = reference.sample(
            network, teacher.model.schedule, torch.cat([rows, code], dim=1), noise,
            guidance_scale=group.guidance_scale, temperature=group.temperature, sampler=walk.sampler,
            sampler_steps=walk.sampler_steps, return_trajectory=True)
        low, high = walk.weight_clip
        last = torch.cat([path.final[:, :-1], path.weight[:, None].clamp(low - BEYOND, high + BEYOND)], dim=1)
        found.append(torch.cat([path.z[:-1], last[None]]))
        place = [] if not walk.width else [(group.guidance_scale - 0.5) / 1.25 - 1]
        beside.append(torch.cat([code, torch.tensor(place).double().expand(len(rows), -1)], dim=1))
    return torch.cat(found, dim=1), torch.cat(beside)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_are_what_the_references_walks_give(kind):
    """Sum and difference of a row give the call's input and output; beside them are state, code and step."""
    maker, count = make(kind), 150
    drawn = maker.drawn(0, count)
    packed = maker.packed(0, maker.ends(0, count)).double()
    path, code = walks(maker, drawn, 0, count)
    n, calls = maker.walk.sampler_steps, maker.settings.calls
    assert packed.shape == (calls, count, 2 * D + S + code.shape[1] + 1)
    begins = [0, *(part[-1] for part in parts(n, calls))]
    for rows, begin, end in zip(packed, [0, *(n - b for b in begins[1:-1])], [n - b for b in begins[1:]],
                                strict=True):
        z, f = rows[:, :D] + rows[:, -D - 1:-1], rows[:, -D - 1:-1]
        assert relative_error(z, path[begin]) < FP32
        assert relative_error(z + f, path[end]) < FP32
        assert torch.equal(rows[:, D:D + S], maker.states[drawn.rows].double())
        assert torch.allclose(rows[:, D + S:-D - 1], code, atol=1e-6, rtol=0)
    assert packed[:, 0, -1].tolist() == sorted(maker.walk.steps, reverse=True)
    assert kind != "cold" or all(group.temperature < 1 for group in drawn.groups)


@pytest.mark.parametrize("kind", ["one call", "a range", "a family"])
def test_a_pair_is_made_again_from_its_number(kind, monkeypatch):
    """By the teacher's own sampling, whatever was drawn beside it."""
    use_small_shards(monkeypatch)
    maker = make(kind)
    drawn, ends = maker.drawn(2, 100), maker.ends(2, 100)
    for place in (0, 63, 64, 99):
        group, number = drawn.groups[place // GROUP], 2 * SHARD + place
        one = maker.teacher.sample(
            maker.states[drawn.rows[place]], n_candidates=1, sampler="dpmpp_2m", sampler_steps=4,
            select="none", seed=maker.seed, state_indices=[number], **group._asdict())
        assert relative_error(one.actions[0], ends[place, -1, :-1]) < FP32
        low, high = maker.walk.weight_clip
        assert relative_error(one.weights[0].clamp(low - BEYOND, high + BEYOND), ends[place, -1, -1]) < FP32
    assert maker.seed != make(kind, "held-out").seed
    assert not torch.equal(maker.drawn(1, 100).rows, drawn.rows)


def test_what_is_drawn_covers_the_range_and_the_family():
    groups = make("a range").drawn(0, 64 * 200).groups
    scales = torch.tensor([group.guidance_scale for group in groups])
    assert 0.5 <= scales.min() < 0.6 and 2.9 < scales.max() <= 3.0
    cold = [group.temperature for group in groups if group.temperature < 1]
    assert 0.05 < len(cold) / 200 < 0.25 and min(cold) >= 0  # 15 % on average
    members = {group.guidance.partition(":")[0] for group in make("a family").drawn(0, 64 * 50).groups}
    assert members == {"expectile", "dice"}


@pytest.mark.parametrize("steps,calls", [(4, 1), (4, 4), (15, 2), (10, 4), (7, 3)])
def test_parts_cover_the_walk_once(steps, calls):
    every = parts(steps, calls)
    assert [row for part in every for row in part] == list(range(steps - 1, -1, -1))
    assert max(map(len, every)) - min(map(len, every)) <= 1
    trained = tuple(range(1, 2 * steps, 2))
    assert student_steps(trained, calls) == tuple(sorted(trained[part[0]] for part in every))
    with pytest.raises(UsageError, match="use fewer calls"):
        parts(steps, steps + 1)


def test_pairs_on_disk_are_drawn_once(tmp_path, monkeypatch):
    use_small_shards(monkeypatch)
    maker = make()
    want = packed_pairs(maker, 300, tmp_path, "mine", progress=False)
    assert want.shape == (1, 300, 2 * D + S + 1) and len(list(tmp_path.iterdir())) == 3
    assert torch.equal(packed_pairs(make(), 300, None, "mine", progress=False), want)
    monkeypatch.setattr(PairMaker, "ends", refused)
    assert torch.equal(packed_pairs(make(), 300, tmp_path, "mine", progress=False), want)


def with_tensor(change):
    def damage(path):
        with safe_open(path, framework="pt") as file:
            tag = file.metadata()
        save_file({"ends": change(load_file(path)["ends"])}, path, metadata=tag)
    return damage


DAMAGED = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "one number off": with_tensor(lambda ends: ends + 1e-3 * (torch.arange(len(ends)) == 3)[:, None, None]),
    "no tag": lambda path: save_file(load_file(path), path),
    "another tensor": lambda path: save_file({"other": torch.zeros(3)}, path),
    "another type": with_tensor(torch.Tensor.bfloat16),
    "another shape": with_tensor(lambda ends: ends.flatten()),
    "fewer": with_tensor(lambda ends: ends[:5].contiguous()),
    "deleted": lambda path: path.unlink()}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_shard_is_drawn_again(name, tmp_path, monkeypatch):
    """That one, no other, and bit for bit."""
    use_small_shards(monkeypatch)
    maker = make()
    want = packed_pairs(maker, 300, tmp_path, "mine", progress=False)
    DAMAGED[name](tmp_path / "train-000001.safetensors")
    again, honest = [], PairMaker.ends
    monkeypatch.setattr(PairMaker, "ends", lambda self, *place: again.append(place) or honest(self, *place))
    assert torch.equal(packed_pairs(make(), 300, tmp_path, "mine", progress=False), want)
    assert again == [(1, SHARD)]


def test_other_pairs_are_drawn_again(tmp_path, monkeypatch):
    """Of another teacher, walk, dataset, seed or another's own settings, under the same name."""
    use_small_shards(monkeypatch)
    teacher, settings = small_teacher(), DistillSettings(**SMALL)
    teachings = [Teaching.of(teacher, settings), Teaching.of(small_teacher(seed=1), settings),
                 Teaching.of(small_teacher(guidance_scale=2.0), settings),
                 Teaching.of(small_teacher(weight_clip=(0.1, 1.0)), settings),
                 Teaching.of(small_teacher(clip_denoised=False), settings)]
    # The first one's card, and with it the hash of the first one's weights.
    borrowed = small_teacher(seed=1).model.parts() | {"card": {"weights_sha256": "0" * 64}}
    teachings += [Teaching.of(type(teacher)(**teacher.model.parts() | {"card": borrowed["card"]}), settings),
                  Teaching.of(type(teacher)(**borrowed), settings)]
    teachings += [Teaching.of(teacher, replace(settings, **change)) for change in (
        {"sampler": "ddim"}, {"sampler_steps": 3}, {"guidance_range": (0.0, 1.0)}, {"seed": 1}, {"calls": 2},
        {"cold_share": 0.5}, {"held_out": 0.1})]
    origins = [origin_of(each.identity, "data", each.settings.to_dict()) for each in teachings]
    origins.append(origin_of(teachings[0].identity, "other data", settings.to_dict()))
    assert len(set(origins)) == len(origins)
    same = Teaching.of(small_teacher(), replace(settings, steps=7, learning_rate=0.1, hidden_dim=32))
    assert origin_of(same.identity, "data", same.settings.to_dict()) == origins[0]
    packed_pairs(make(), 200, tmp_path, origins[0], progress=False)
    other = make(guidance_scale=2.0)
    found = packed_pairs(other, 200, tmp_path, origins[2], progress=False)
    assert torch.equal(found, packed_pairs(other, 200, None, "", progress=False))


def test_a_walk_that_is_not_finite_is_named(tmp_path, monkeypatch):
    use_small_shards(monkeypatch)
    honest = PairMaker.ends

    def spoilt(self, shard, count):
        ends = honest(self, shard, count)
        ends[5:, 0, 1] = torch.inf if shard == 1 else 0
        return ends

    monkeypatch.setattr(PairMaker, "ends", spoilt)
    with pytest.raises(UsageError, match=f"pair {SHARD + 5}: the teacher's walk at guidance_scale=1 is not"):
        packed_pairs(make(), 300, tmp_path, "mine", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.safetensors"]


def test_a_signal_ends_the_drawing_after_a_shard(tmp_path, monkeypatch):
    use_small_shards(monkeypatch)
    honest = PairMaker.ends

    def struck(self, shard, count):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, shard, count)

    monkeypatch.setattr(PairMaker, "ends", struck)
    with pytest.raises(Interrupted, match="128 of 300 pairs are drawn; continue with --resume") as error:
        packed_pairs(make(), 300, tmp_path, "mine", progress=False)
    assert error.value.code == 128 + signal.SIGTERM and len(list(tmp_path.iterdir())) == 1


def test_what_else_is_in_the_folder_stays(tmp_path):
    for name in ("train-000000.safetensors", "held-out-000000.safetensors", "mine.safetensors"):
        (tmp_path / name).write_text("")
    drop_pairs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    (tmp_path / "mine.safetensors").unlink()
    drop_pairs(tmp_path)
    assert not tmp_path.exists()
