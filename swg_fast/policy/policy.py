"""The front door: a policy that samples candidates and keeps the best (SWG-R)."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.checks import flag, shown, text, whole
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device
from swg_fast.common.inputs import real_tensor
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.method.networks import EnsembleQ, Ranker, ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.method.sampler_names import STUDENT
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy import hub
from swg_fast.policy.backends import registry
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.backends.streaming import Backend
from swg_fast.policy.bound_sampler import Array, BoundSampler
from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.resolving import resolved
from swg_fast.policy.sampling import Execution, SamplingConfig, card_entry, check_overrides, own_settings
from swg_fast.policy.search_plan import SearchPlan, plan_search
from swg_fast.policy.soundness import check_model
from swg_fast.policy.surroundings import own_surroundings

MOST_BOUND = 64  # samplers that a policy keeps; each is a few tables
COUNTING = threading.Lock()  # threads that share a policy draw different noise
EXECUTION = frozenset(entry.name for entry in fields(Execution))
PLAIN = {int, float, str, bool, type(None)}


class Policy:
    """A trained score network, its schedule, and what may stand beside them (`Model`): a ``critic`` for
    ``select="max_q"``, a ``ranker`` for ``ranking="ranker"`` and ``select="lcb_weight"``, an ensemble of
    ``critics`` for ``select="lcb_q"``, a ``student`` for ``sampler="student"``, ``value`` and ``card``.

    The networks are copied: the caller's stay as they are, and a later change of theirs is not seen.
    ``bounds``, the lowest and highest action of the environment, are the card's under "action_bounds".
    ``defaults`` are the policy's own sampling settings, a `SamplingConfig` or names and values; without them
    the card's under "sampling". `config` and `execution` show them. A sample depends on its arguments alone,
    on no setting of torch around the call. A policy can be copied, pickled and used in a forked process.
    """

    def __init__(self, network: ScoreNetwork, schedule: NoiseSchedule, critic: TwinQ | None = None, *,
                 value: ValueNetwork | None = None, ranker: Ranker | None = None,
                 student: ScoreNetwork | None = None, critics: EnsembleQ | None = None,
                 card: Mapping[str, Any] | None = None, device: str | torch.device = "cpu",
                 defaults: SamplingConfig | Mapping[str, Any] | None = None) -> None:
        self.device = resolve_device(device)
        if not isinstance(card, Mapping | None):
            raise UsageError(f"card is {shown(card)}, expected names and values, such as {{'task': 'mine'}}")
        model = Model(network, schedule, critic, value, dict(card or {}), ranker, student, critics)
        own = model.card.get("sampling") if defaults is None else defaults
        self.config, self.execution = own_settings(own)
        self.family = model.family
        if self.family is not None and self.config.guidance is None:
            self.config = replace(self.config, guidance=self.family.default)
        with own_surroundings():
            check_model(model)
            self.model = model.copied(self.device)
        self.bounds = ActionBounds.from_card(model.card, self.action_dim)
        self._backends: dict[tuple[str, str, bool], Backend] = {}
        self._bound: dict[Any, BoundSampler] = {}
        self._calls = 0
        self._seed = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_backends": {}, "_bound": {}}  # a copy packs its networks anew

    def __repr__(self) -> str:
        network, config = self.model.network, self.settings()
        beside = ", ".join(name for name, _ in self.model.networks() if name != "network") or "nothing"
        schedule = self.model.schedule
        by = "its student" if config.sampler == STUDENT else config.sampler
        return (f"Policy {self.card.get('task') or 'of no named task'} on {self.device}: states of "
                f"{self.state_dim}, actions of {self.action_dim} ({self.bounds or '-1 to 1'})\n"
                f"  network {network.hidden_dim} wide, {network.num_blocks} blocks, {network.weight_head} "
                f"weight head, {schedule.num_steps} steps ({schedule.name}); beside it: {beside}\n"
                f"  {by} draws {config.n_candidates} candidate(s), guidance scale {config.guidance_scale:g}, "
                f"temperature {config.temperature:g}, keeps by {config.choice}")

    @property
    def card(self) -> dict[str, Any]:
        """The model card: free JSON that `save` keeps."""
        return self.model.card

    @property
    def state_dim(self) -> int:
        return self.model.state_dim

    @property
    def action_dim(self) -> int:
        return self.model.network.action_dim

    @property
    def observation_space(self) -> Any:
        """States [S] as a `gymnasium.spaces.Box`."""
        return _box(np.full(self.state_dim, -np.inf), np.full(self.state_dim, np.inf))

    @property
    def action_space(self) -> Any:
        """Actions [A] that `predict` gives as a `gymnasium.spaces.Box`."""
        return _box(*(self.bounds or ActionBounds.unit(self.action_dim)).inside)

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint that `load_policy` gives back as this policy, its settings and card
        included; returns ``folder``. `UsageError` where it cannot be written."""
        return save_checkpoint(folder, self.model.with_card(sampling=card_entry(self.config, self.execution)))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, subfolder: str = ".", revision: str | None = None,
                        cache_dir: str | Path | None = None, token: str | None = None,
                        device: str | torch.device = "cpu") -> Policy:
        """The policy of a folder, of a bundled name, or of the Hugging Face hub's repository NAMESPACE/NAME
        at ``revision`` (a branch, a tag or a commit). ``subfolder``: where the folder holds several.

        Raises `UsageError` where the extra `hub` or the network is missing, and as `load_policy` does.
        """
        folder = hub.fetched(name_or_path, revision=revision, cache_dir=cache_dir, token=token)
        with own_surroundings():
            return cls(**load_checkpoint(folder / subfolder).parts(), device=device)

    def push_to_hub(self, repo_id: str, *, folder: str | Path | None = None, license: str | None = None,
                    private: bool = False, revision: str | None = None, token: str | None = None) -> str:
        """Uploads the policy to the Hugging Face hub's repository ``repo_id`` (NAMESPACE/NAME), with a card
        that the hub reads; returns the commit's address.

        folder: where the policy was loaded from; policies in its sub-folders are uploaded too. license: as
        the hub names licences, such as "mit"; else the card's "licence", else "unknown".

        Raises `UsageError` where the extra `hub`, the network or a login is missing.
        """
        hub.check_upload(repo_id)
        with tempfile.TemporaryDirectory(prefix="swg-fast-") as place:
            if folder is not None:
                hub.copy_beside(folder, Path(place))
            self.save(place)
            hub.write_card(Path(place), self.card, repo_id, license)
            return hub.uploaded(Path(place), repo_id, private=private, revision=revision, token=token)

    def export(self, path: str | Path, config: SamplingConfig | str | None = None, *, format: str = "onnx",
               takes: str = "noise", **overrides: Any) -> Path:
        """Writes the finished decision as one float32 graph that runs without this package; returns ``path``.

        format: ``onnx``, or ``torch`` for `torch.export.load`. takes: beside state [B, S] the graph is given
        noise [B, N, D] (and step_noise [B, N, K, D] where K steps of the walk add noise), or a seed (int64)
        from which it draws the noise of `sample`. It gives action [B, A] in the units of `predict`, weight
        [B] and index [B]. config, overrides: the settings, as `sample` takes them.

        Raises `UsageError` for settings that have no graph, by name, and where the file cannot be written.
        """
        from swg_fast.policy.export import export_decision

        chosen = EXECUTION & overrides.keys()
        if chosen:
            raise UsageError(f"{min(chosen)} has no meaning in an export, which computes in fp32 by its own "
                             "runtime; leave it out")
        bound = self.bind(config, execution=Execution(backend="torch", dtype="fp32"), **overrides)
        return export_decision(bound, path, format=format, takes=takes, bounds=self.bounds)

    def backend(self, name: str = "auto", dtype: str | None = None, student: bool = False) -> Backend:
        """The backend ``name`` in compute type ``dtype`` (None: the policy's own) for the policy's network or
        for its ``student``; packed once and kept."""
        dtype = self.execution.dtype if dtype is None else text("dtype", dtype)
        model = self.model.as_student() if student else self.model
        key = (registry.resolve(name, self.device, model.network, dtype), dtype, model is not self.model)
        if key not in self._backends:
            with own_surroundings():
                self._backends[key] = registry.make_backend(key[0], model, dtype, self.device)
        return self._backends[key]

    def sample(self, states: Array, config: SamplingConfig | str | None = None, *, seed: int | None = None,
               state_indices: Array | None = None, return_candidates: bool = False,
               execution: Execution | None = None, **overrides: Any) -> Samples:
        """N candidates for every state [B, S] (or one state [S]); the best of each is kept.

        config: settings in place of the policy's own: a `SamplingConfig`, or ``paper``, ``fast`` or ``best``
        (`sampling.PRESETS`). overrides: single settings by name, such as n_candidates=64 or backend="torch":
        any field of `SamplingConfig` and `Execution`; they win. `settings` shows what would be used.
        seed: 64 bits; None is another at every call (`reseed`). A candidate's noise depends on (seed,
        candidate index, state index) alone; ``state_indices`` [B] replaces the state indices 0..B-1.

        Raises `UsageError` for arguments of another shape, type or range, for states with NaN, unknown
        names, ``max_q`` without a critic, more memory than there is, and actions that would not be
        finite, naming the first step at which they are not.
        """
        return self.bind(config, execution=execution, **overrides).sample(
            states, seed=self._next_seed() if seed is None else seed, state_indices=state_indices,
            return_candidates=return_candidates)

    def bind(self, config: SamplingConfig | str | None = None, *, execution: Execution | None = None,
             **overrides: Any) -> BoundSampler:
        """A sampler for these settings (as `sample` takes them), checked once and kept: its calls check no
        setting again. Nothing is drawn, so it also says before long work whether `sample` would refuse.

        Raises `UsageError` as `sample` does for settings.
        """
        if not isinstance(execution, Execution | None):
            raise UsageError(f"execution is {shown(execution)}; give an Execution, or settings by name, such "
                             "as backend='torch'")
        key: Any = None
        plain = all(type(value) in PLAIN for value in overrides.values())  # nothing changes behind the key
        if plain and isinstance(config, SamplingConfig | str | None):
            key = (self.config, self.execution, config, execution,
                   tuple((name, type(value), value) for name, value in overrides.items()))
            if key in self._bound:
                return self._bound[key]
        given = check_overrides(overrides)
        chosen = {name: given.pop(name) for name in EXECUTION & given.keys()}
        execution = replace(execution or self.execution, **chosen)
        with own_surroundings():
            plan = plan_search(self._resolved(config, given), self.model, self.family)
        bound = self._bind(plan, execution)
        if key is not None:
            if len(self._bound) >= MOST_BOUND:
                self._bound.clear()
            self._bound[key] = bound
        return bound

    def settings(self, config: SamplingConfig | str | None = None, **overrides: Any) -> SamplingConfig:
        """What `sample` would use, given these: every setting with its value. `UsageError` as there."""
        given = check_overrides(overrides)
        return self._resolved(config, {k: v for k, v in given.items() if k not in EXECUTION})

    def _resolved(self, config: SamplingConfig | str | None, given: Mapping[str, Any]) -> SamplingConfig:
        return resolved(self.config, config, given, self.model)

    def _bind(self, plan: SearchPlan, execution: Execution) -> BoundSampler:
        backend = self.backend(execution.backend, execution.dtype, plan.student)
        if plan.teacher is None:
            model = self.model.as_student() if plan.student else self.model
            return BoundSampler(model, backend, plan, execution.chunk)
        # The fused kernels draw candidates in a row alone, not those that a student has chosen.
        name = "torch" if backend.name == "triton" else execution.backend
        teacher = self._bind(plan.teacher, replace(execution, backend=name))
        return BoundSampler(self.model.as_student(), backend, plan, execution.chunk, teacher)

    def predict(self, observation: Array, state: Any = None, episode_start: Any = None,
                deterministic: bool = False, *, seed: int | None = None, **settings: Any
                ) -> tuple[np.ndarray, Any]:
        """(actions, state) as stable-baselines3 has it: [S] -> [A], [B, S] -> [B, A], numpy, in the
        environment's units and within its `bounds`; in [-1, 1] where the card has no bounds.

        ``deterministic`` is the paper's plain SWG, one candidate at temperature 0. Otherwise each
        call draws new noise, a function of the policy's seed (`reseed`) and the number of calls;
        ``seed`` fixes it. Other keywords go to `sample`.
        """
        observation = real_tensor("states", observation)
        one = observation.ndim == 1
        if flag("deterministic", deterministic):
            settings |= {"n_candidates": 1, "temperature": 0.0}
        actions = self.sample(observation, seed=seed, **settings).actions.cpu().numpy()
        if self.bounds is not None:
            actions = self.bounds.to_environment(actions)
        return (actions[0] if one else actions), state

    def reseed(self, seed: int) -> None:
        """Starts the noise of calls without a seed anew; ``seed`` in 0..2**32-1."""
        self._seed, self._calls = whole("seed", seed, 0, 2**32 - 1), 0

    def _next_seed(self) -> int:
        with COUNTING:
            self._calls += 1
            return self._seed + (self._calls - 1 << 32)


def _box(low: np.ndarray, high: np.ndarray) -> Any:
    from gymnasium.spaces import Box

    return Box(low, high, dtype=np.float32)


def load_policy(name_or_path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """A policy from a checkpoint's folder, or a bundled one by name (``antmaze-umaze-v2``)."""
    with own_surroundings():
        return Policy(**load_checkpoint(name_or_path).parts(), device=device)


def untrained_policy(state_dim: int, action_dim: int, device: str, **sizes: Any) -> Policy:
    """A policy that knows nothing, the same each time; ``sizes`` are `ScoreNetwork`'s."""
    torch.manual_seed(0)
    return Policy(ScoreNetwork(state_dim, action_dim, **sizes), NoiseSchedule.vp(15), device=device)
