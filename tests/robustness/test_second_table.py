"""What a caller hands over from Python, at the place where it enters: one line that names it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import make_network, make_recording
from torch.nn.utils import parametrizations, prune

from swg_fast import (
    NoiseSchedule,
    Policy,
    Sampler,
    ScoreNetwork,
    TwinQ,
    UsageError,
    ValueNetwork,
    evaluate,
    load_policy,
)
from swg_fast.common.errors import reason
from swg_fast.common.quiet import explain
from swg_fast.data.transitions import to_transitions
from swg_fast.envs import make, make_env
from swg_fast.policy.sampling import Execution, SamplingConfig

S, A = 5, 3
STATES = np.linspace(-1, 1, 2 * S).reshape(2, S).astype(np.float32)
DATA = make_recording(20, 10, states=S, actions=A)
SIZES_BAD = ("16", None, 16.0, True, -1, float("nan"), [16], 10**9)
MAKERS = {
    "hidden_dim": lambda v: ScoreNetwork(S, A, v),
    "state_dim": lambda v: ScoreNetwork(v, A, 16),
    "action_dim": lambda v: ScoreNetwork(S, v, 16),
    "num_blocks": lambda v: ScoreNetwork(S, A, 16, v),
    "time_embed_dim": lambda v: ScoreNetwork(S, A, 16, time_embed_dim=v),
    "hidden_dim of Q": lambda v: TwinQ(S, A, v),
    "state_dim of Q": lambda v: TwinQ(v, A, 8),
    "hidden_dim of V": lambda v: ValueNetwork(S, v),
    "state_dim of V": lambda v: ValueNetwork(v, 8),
    "num_steps": NoiseSchedule.vp,
    "num_steps of cosine": NoiseSchedule.cosine,
    "num_steps of linear": NoiseSchedule.linear,
}


@pytest.fixture(scope="module")
def policy():
    return Policy(make_network(S, A, 16), NoiseSchedule.vp(3), defaults={"n_candidates": 4, "dtype": "fp32"})


def refused(call, word):
    with pytest.raises(UsageError) as error:
        call()
    assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("value", SIZES_BAD, ids=repr)
def test_a_size_is_a_whole_number_in_its_range(name, value):
    refused(lambda: MAKERS[name](value), f"{name.split()[0]} must be ")


def test_a_size_may_be_of_numpy_and_is_saved_as_a_number(tmp_path):
    network = ScoreNetwork(*(np.int64(size) for size in (S, A, 16, 2)))
    assert load_policy(Policy(network, NoiseSchedule.vp(np.int32(3))).save(tmp_path)).state_dim == S


def changed(change):
    """A policy of a network to which ``change`` was done."""
    network = make_network(S, A, 16)
    change(network)
    return Policy(network, NoiseSchedule.vp(3))


def with_forward():
    class Mine(ScoreNetwork):
        def forward(self, *arguments):
            return 2 * super().forward(*arguments)

    return Policy(Mine(S, A, 16), NoiseSchedule.vp(3))


def schedule(betas, name="mine"):
    return lambda: NoiseSchedule(name, betas)


PARTS = {
    "dropout of all": (lambda: ScoreNetwork(S, A, 16, dropout=1.0), "dropout must be"),
    "dropout in words": (lambda: ScoreNetwork(S, A, 16, dropout="some"), "dropout must be a number"),
    "an odd embedding": (lambda: ScoreNetwork(S, A, 16, time_embed_dim=3), "time_embed_dim must be even"),
    "norm in words": (lambda: ValueNetwork(S, 8, norm="no"), "norm must be true or false"),
    "schedules": (lambda: NoiseSchedule.by_name(["vp"], 3), "unknown schedule ['vp']"),
    "betas in words": (schedule("abc"), "betas has dtype"),
    "no betas": (schedule(None), "betas has dtype object"),
    "a beta of none": (schedule([0.1, None]), "betas has dtype object"),
    "complex betas": (schedule(torch.tensor([0.1 + 1j])), "dense tensor of real numbers"),
    "masked betas": (schedule(np.ma.masked_less([0.1, 0.2], 0.15)), "masked"),
    "betas nowhere": (schedule(torch.zeros(3, device="meta")), "dense tensor"),
    "sparse betas": (schedule(torch.tensor([0.1]).to_sparse()), "dense tensor"),
    "a numbered schedule": (schedule([0.1], 3), "must be a string, got 3"),
    "a lock": (lambda: changed(lambda n: setattr(n, "lock", threading.Lock())), "cannot be copied"),
    "pruning": (lambda: changed(lambda n: prune.l1_unstructured(n.input, "weight", 0.3)), "without pruning"),
    "a parametrization": (
        lambda: changed(lambda n: parametrizations.weight_norm(n.input)), "parametrizations"),
    "another layer": (lambda: changed(lambda n: setattr(n, "input", torch.nn.Linear(3, 3))), "its sizes"),
    "a size that lies": (lambda: changed(lambda n: setattr(n, "state_dim", 6)), "its sizes"),
    "another function": (with_forward, "computes something else"),
    "a card that is a list": (
        lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), card=[1]), "card is [1]"),
    "a card that is a text": (
        lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), card="ab"), "card is 'ab'"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name):
    refused(*PARTS[name])


def test_betas_of_another_byte_order():
    assert NoiseSchedule("mine", np.array([0.1, 0.2], ">f8")).betas.tolist() == [0.1, 0.2]


CALLS = {
    "execution as names": (lambda p: p.bind(execution={"backend": "torch"}), "give an Execution"),
    "execution in words": (lambda p: p.sample(STATES, execution="torch"), "execution is 'torch'"),
    "execution for config": (lambda p: p.sample(STATES, Execution()), "give a SamplingConfig"),
    "config for execution": (lambda p: p.sample(STATES, execution=SamplingConfig()), "give an Execution"),
    "backends": (lambda p: p.backend(["torch"]), "unknown backend ['torch']"),
    "types": (lambda p: p.backend("torch", ["fp32"]), "dtype must be a string"),
    "no type": (lambda p: p.backend("torch", ""), "no compute type ''"),
    "deterministic in words": (lambda p: p.predict(STATES, deterministic="no"), "true or false, got 'no'"),
    "narrow indices that are halves": (
        lambda p: p.sample(STATES, state_indices=torch.tensor([0.5, 1]).to(torch.float8_e4m3fn)), "whole"),
    "a sampler of no policy": (lambda p: Sampler(None), "policy is None, expected Policy"),
    "a numbered sampler": (lambda p: Sampler(p, 3), "name is 3, expected str"),
    "half a seed": (lambda p: Sampler(p)(torch.tensor(STATES), torch.tensor(3.5)), "give one whole number"),
    "two seeds": (lambda p: Sampler(p)(torch.tensor(STATES), torch.tensor([1, 2])), "give one whole number"),
    "evaluate a name": (lambda p: evaluate("antmaze-umaze-v2", "Pendulum-v1"), "expected Policy"),
    "evaluate in no task": (lambda p: evaluate(p, None), "give a task's name"),
    "evaluate in tasks": (lambda p: evaluate(p, ["Pendulum-v1"]), "give a task's name"),
    "environment as names": (
        lambda p: evaluate(p, "Pendulum-v1", environment={"step_timeout": 3}), "such as EnvSettings("),
    "a task of bytes": (lambda p: make_env(b"Pendulum-v1"), "task must be a string"),
    "keys as text": (lambda p: make_env("Pendulum-v1", "abc"), "observation_keys is 'abc'; give a list"),
    "numbers as keys": (lambda p: make_env("Pendulum-v1", [1]), "observation_keys is [1]; give a list"),
    "trust as text": (lambda p: make_env("a:B-v0", trust="a"), "trust is 'a'; give a list"),
    "an action in words": (lambda p: make("Pendulum-v1").step("x"), "the action is 'x'; give 1 finite"),
    "an action too many": (lambda p: make("Pendulum-v1").step([1, 2]), "the action is [1, 2]; give 1"),
    "an action that is NaN": (lambda p: make("Pendulum-v1").step([np.nan]), "give 1 finite numbers"),
    "a complex action": (lambda p: make("Pendulum-v1").step([1j]), "give 1 finite numbers"),
    "a limit in words": (lambda p: to_transitions(DATA, max_episode_steps="x"), "max_episode_steps must be"),
    "a limit below one": (lambda p: to_transitions(DATA, max_episode_steps=-1), "at least 1"),
    "going on in words": (
        lambda p: to_transitions(DATA, continues_after_terminal="no"), "true or false, got 'no'"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name, policy):
    call, word = CALLS[name]
    refused(lambda: call(policy), word)


def test_indices_of_a_narrow_type(policy):
    narrow = torch.tensor([0.0, 3.0]).to(torch.float8_e4m3fn)
    alike = [policy.sample(STATES, seed=1, state_indices=indices).actions for indices in (narrow, [0, 3])]
    assert torch.equal(*alike)


SAVED_BAD = {
    "a number beyond 64 bits": ({"card": {"steps": 10**400}}, "mine", "beyond 64 bits"),
    "NaN in the card": ({"card": {"loss": float("nan")}}, "mine", "NaN is not a number"),
    "a name of other bytes": ({}, "\udcff", "no text in UTF-8"),
}


@pytest.mark.parametrize("name", SAVED_BAD)
def test_what_could_not_be_loaded_again_is_not_saved(name, tmp_path):
    parts, folder, word = SAVED_BAD[name]
    refused(lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), **parts).save(tmp_path / folder),
            word)
    assert not list(tmp_path.iterdir())


def test_threads_that_share_a_policy_draw_different_noise(policy):
    with ThreadPoolExecutor(8) as pool:
        seeds = list(pool.map(lambda _: policy._next_seed(), range(2000)))
    assert len(set(seeds)) == 2000


class Silent(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize("said,shown", {
    "two\nlines": "two lines", "\x1b[2J": "\\x1b[2J", "\udcff": "\\udcff", "a\u2028b": "a b",
    "é 中": "é 中", "a\tb\0": "a\\tb\\x00"}.items())
def test_a_message_is_one_line_that_a_terminal_can_show(said, shown):
    assert str(UsageError(said)) == shown


def test_an_exception_that_cannot_say_what_it_is():
    assert reason(Silent()) == "Silent" and explain(Silent()) == "Silent"
