"""Checkpoints with a student whose card is damaged: one line that names the field."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from swg_fast import UsageError, load_policy
from swg_fast.common.atomic_files import sha256
from swg_fast.policy.checkpoint import WEIGHTS
from tests.policy.students import student_policy
from tests.robustness.damage import REMOVED, card_with


def walk_with(name, value):
    return card_with("distilled", "walk", name, value)


def without_student(folder):
    """Both networks by the card, one in the file."""
    tensors = {name: t for name, t in load_file(folder / WEIGHTS).items() if not name.startswith("student.")}
    save_file(tensors, folder / WEIGHTS)
    card_with("weights_sha256", sha256(folder / WEIGHTS))(folder)


def infinite(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["student.input.bias"][0] = torch.inf
    save_file(tensors, folder / WEIGHTS)
    card_with("weights_sha256", sha256(folder / WEIGHTS))(folder)


BAD = {
    "a record that is a list": (card_with("distilled", [1]), "distilled: input should be an object"),
    "no walk": (card_with("distilled", {}), "distilled of the card has no walk"),
    "a walk that is a text": (card_with("distilled", "walk", "ddim"), "distilled of the card"),
    "no steps": (walk_with("steps", []), "steps is ()"),
    "steps left out": (walk_with("steps", REMOVED), "steps is missing"),
    "steps below 0": (walk_with("steps", [-1]), "steps is (-1,)"),
    "steps that fall": (walk_with("steps", [5, 2]), "steps is (5, 2)"),
    "a step twice": (walk_with("steps", [5, 5]), "steps is (5, 5)"),
    "half a step": (walk_with("steps", [2.5]), "steps.0: "),
    "steps that were not trained": (walk_with("steps", [6]), "trained steps 6"),
    "a longer walk than was trained": (walk_with("sampler_steps", 7), "walk of 7 steps"),
    "a walk of none": (walk_with("sampler_steps", 0), "sampler_steps is 0"),
    "an unknown sampler": (walk_with("sampler", "euler"), "sampler is 'euler'"),
    "a stochastic sampler": (walk_with("sampler", "ddpm"), "sampler is 'ddpm'"),
    "a student of a student": (walk_with("sampler", "student"), "sampler is 'student'"),
    "a numbered sampler": (walk_with("sampler", 3), "sampler: "),
    "a scale alone": (walk_with("guidance_scale", 2.0), "guidance_scale: "),
    "one end": (walk_with("guidance_scale", [2.0]), "guidance_scale.1"),
    "a range turned round": (walk_with("guidance_scale", [3.0, 1.0]), "guidance_scale is (3.0, 1.0)"),
    "a huge scale": (walk_with("guidance_scale", [0.0, 1e9]), "guidance_scale is (0.0, 1000000000.0)"),
    "a range for another width": (walk_with("guidance_scale", [1.0, 2.0]), "the student is for states of 4"),
    "a clip of nothing": (walk_with("weight_clip", [0.0, 1.0]), "weight_clip is (0.0, 1.0)"),
    "a clip turned round": (walk_with("weight_clip", [1.0, 0.1]), "weight_clip is (1.0, 0.1)"),
    "a read-out": (walk_with("weight_readout", "rough"), "weight_readout is 'rough'"),
    "clipping": (walk_with("clip_denoised", "yes"), "clip_denoised: "),
    "no record": (card_with("distilled", REMOVED), "the card does not say under 'distilled'"),
    "no student in the card": (card_with("student", None), "card and weights are from different"),
    "no student in the file": (without_student, "card and weights are from different"),
    "a student of other sizes": (card_with("student", "hidden_dim", 32), "has shape"),
    "a huge student": (card_with("student", "hidden_dim", 10**7), "student: hidden_dim must be at most"),
    "a student of another task": (card_with("student", "state_dim", 7), "the student is for states of 7"),
    "finish of none": (card_with("sampling", "finish", 0), "finish"),
    "infinity": (infinite, "student.input.bias has NaN or infinity")}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoint_of_a_student(name, tmp_path):
    folder = student_policy().save(tmp_path / "p")
    change, word = BAD[name]
    change(folder)
    with pytest.raises(UsageError) as error:
        load_policy(folder)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_students_record_is_what_tells_it_from_a_diffusion(tmp_path):
    folder = student_policy(beside=False).save(tmp_path / "p")
    assert not load_policy(folder).model.has_diffusion
    card_with("distilled", {"walk": None})(folder)
    with pytest.raises(UsageError, match="distilled of the card"):
        load_policy(folder)
