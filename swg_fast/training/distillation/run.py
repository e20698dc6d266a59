"""A whole distillation: the pairs, the student, its error, and the policy that draws by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.atomic_files import replacing, user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import check_memory
from swg_fast.common.identity import key_of
from swg_fast.data import Transitions
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.sampler_names import STUDENT
from swg_fast.method.samplers import evenly_spaced
from swg_fast.method.student import ENTRY, StudentWalk
from swg_fast.policy.checkpoint import save_checkpoint
from swg_fast.policy.model_card import FITTED, JUDGED
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig, card_entry
from swg_fast.policy.search_plan import by_diffusion
from swg_fast.training.distillation.agreement import agreement, together
from swg_fast.training.distillation.best import check_best
from swg_fast.training.distillation.pairs import AT_ONCE, PairMaker, student_steps
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.distillation.shards import drop_pairs, origin_of, packed_pairs
from swg_fast.training.distillation.trainer import StudentTrainer, new_student, student_sizes
from swg_fast.training.history import HISTORY
from swg_fast.training.logger import check_logger, open_writer
from swg_fast.training.loop import LoopOptions, run_phase
from swg_fast.training.preflight import check_precision, floats_to_learn
from swg_fast.training.run_config import CONFIG, write_config
from swg_fast.training.run_folder import RunRecord, claimed
from swg_fast.training.saved_state import Origin

ON_CPU = 400_000  # pairs
MOST_WALKED = 10  # steps of a walk, where nobody says; more of them end no elsewhere
MEASURED = 8192  # pairs that measure the error
FOUND = "held_out.safetensors"  # in the logs: where teacher and student end


@dataclass(frozen=True)
class Teaching:
    """A teacher with what is to be learnt from it: its walk and the settings, checked. ``identity`` stands
    for its weights and the walk, whose settings are in part the teacher's own."""

    teacher: Policy
    walk: StudentWalk
    settings: DistillSettings
    identity: str

    @classmethod
    def of(cls, teacher: Policy, settings: DistillSettings) -> Teaching:
        """Raises `UsageError` for a teacher without a diffusion, and a walk that it cannot make."""
        if not teacher.model.has_diffusion:
            raise UsageError("this policy is a student itself and has no walk to learn; distil the policy "
                             "that it was distilled from")
        if teacher.config.guidance_interval is not None:
            raise UsageError(f"the policy's own guidance_interval is {teacher.config.guidance_interval}, and "
                             "a student learns walks that are guided in all steps; take it out of the "
                             "card's sampling settings")
        check_precision(settings.precision, teacher.device)
        walk = student_walk(teacher.config, teacher.model.schedule.num_steps, settings,
                            teacher.card.get("weights_sha256") or "")
        if settings.of_best is not None:
            teacher.bind(n_candidates=settings.of_best, guidance_scale=settings.guidance_scale,
                         **settings.of_candidates())
        return cls(teacher, walk, settings, _identity(teacher, walk, settings.of_candidates()))


def student_walk(own: SamplingConfig, trained: int, settings: DistillSettings, weights: str = ""
                 ) -> StudentWalk:
    """The walk of ``settings`` of a teacher with its ``own`` settings of sampling and ``trained`` steps;
    ``weights`` is its weights' SHA-256. `UsageError` for a walk that it cannot make."""
    if settings.of_best is not None:
        check_best(own, settings)
    steps = evenly_spaced(trained, settings.sampler_steps or min(trained, MOST_WALKED))
    scale = own.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
    return StudentWalk(
        weights, settings.sampler, len(steps), settings.guidance_range or (scale, scale),
        student_steps(steps, settings.calls), own.weight_clip, own.weight_readout, own.clip_denoised,
        settings.of_best)


def student_config(teacher: SamplingConfig, walk: StudentWalk) -> SamplingConfig:
    """The student's own settings of sampling: the ``teacher``'s, as far as a student has them."""
    own = replace(teacher, sampler=STUDENT, sampler_steps=None, leaves=1, branch_after=None,
                  guidance_scale=walk.default_scale, finish=None)
    if walk.of_best is not None:  # its one draw is the decision
        own = replace(own, n_candidates=1, average_share=0.0)
    if by_diffusion(own):  # which a student alone has not
        select = "max_weight" if by_diffusion(replace(own, keep_share=1.0)) else own.select
        own = replace(own, select=select, keep_share=1.0)
    return own


def _identity(teacher: Policy, walk: StudentWalk, drawn: Mapping[str, Any]) -> str:
    """What stands for all that decides where the walk ends. A card may be that of other weights."""
    state = teacher.model.network.state_dict() | {"betas": teacher.model.schedule.betas}
    if walk.of_best is not None:  # whatever draws and ranks decides what is kept
        state = {f"{part}.{name}": tensor for part, module in teacher.model.networks()
                 for name, tensor in module.state_dict().items()} | state
    digest = hashlib.sha256()
    for tensor in state.values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    ranked = {}
    if walk.of_best is not None:
        ranked = {"ranked": card_entry(replace(teacher.config, **drawn), teacher.execution)}
    return key_of({"weights": digest.hexdigest(), "walk": asdict(walk), "family": str(teacher.family)}
                  | ranked)


def distill(teaching: Teaching, data: Transitions, out: str | Path, *, resume: bool = False,
            card: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None,
            logger: str = "none", keep_pairs: bool = False, with_teacher: bool = False,
            options: LoopOptions | None = None) -> Path:
    """Distils a student from the teacher's walks from the states of ``data``; returns the folder of its
    checkpoint, ``out/policy``.

    ``out`` holds what a training's does (`swg_fast.training.run.train`), and ``pairs/`` while the student
    learns on a CPU. ``resume`` continues from the pairs and states that are there, bit for bit.
    ``with_teacher`` puts both into the policy. ``card`` has entries for the policy's card.

    Raises `UsageError` for what would fail later, before ``out`` is touched; where ``out`` holds another run
    or is in use; and where the losses are no longer finite (`Diverged`). Raises `Interrupted` on Ctrl-C and
    SIGTERM. The policy is written whole or not at all.
    """
    out, settings = user_path(out), teaching.settings
    check_logger(logger)
    _check(teaching, data)
    values = settings.to_dict() | {"teacher": teaching.identity}
    mine = RunRecord(values, len(data), data.fingerprint(), kind="distill")
    options = options or LoopOptions(out / "states")
    with claimed(out, mine, resume) as record:
        history = out / "logs" / HISTORY
        config = dict(config or {}) | settings.to_dict()
        write_config(out / CONFIG, config, "distill")
        with open_writer(logger, out / "logs", config, resume) as writer:
            options = replace(options, folder=out / "states", history=history, resume=resume, writer=writer,
                              origin=Origin(record.id, key_of(values), data=mine.data_hash))
            folder = _distill(teaching, data, out, dict(card or {}), with_teacher, options)
        if not keep_pairs:
            drop_pairs(out / "pairs")
        return folder


def _check(teaching: Teaching, data: Transitions) -> None:
    """`UsageError` for data of other sizes, for a student that cannot be, and for more than memory holds."""
    teacher, settings = teaching.teacher, teaching.settings
    sizes = data.observations.shape[1], data.actions.shape[1]
    if sizes != (teacher.state_dim, teacher.action_dim):
        raise UsageError(f"the dataset has states of {sizes[0]} and actions of {sizes[1]}, the teacher is "
                         f"for {teacher.state_dim} and {teacher.action_dim}; give the dataset of its task")
    own = student_sizes(teacher.model.network, teaching.walk.width, settings)
    check_memory(4 * floats_to_learn(settings.batch, **own), "this distillation",
                 "use a smaller --hidden-dim, --num-blocks or --batch", teacher.device)
    floats = 2 * (teacher.action_dim + 1) + teacher.state_dim + 4
    check_memory(8 * floats * _count(teaching) * settings.calls, f"{_count(teaching):,} pairs",
                 "use fewer --pairs", teacher.device)


def _count(teaching: Teaching) -> int:
    settings = teaching.settings
    fresh = settings.steps * settings.batch
    return settings.pairs or (min(ON_CPU, fresh) if teaching.teacher.device.type == "cpu" else fresh)


def _distill(teaching: Teaching, data: Transitions, out: Path, card: dict[str, Any], with_teacher: bool,
             options: LoopOptions) -> Path:
    settings, model = teaching.settings, teaching.teacher.model
    mask = data.unlearnt(settings.held_out, settings.seed, "the error is measured")
    origin = origin_of(teaching.identity, data.fingerprint(), settings.to_dict())
    device = teaching.teacher.device
    folder = out / "pairs" if device.type == "cpu" else None  # a GPU draws them again in less time
    sets = {}
    warm = replace(settings, cold_share=0.0)  # the error is that of temperature 1
    for name, own, some, count in (("held-out", warm, mask, min(MEASURED, _count(teaching))),
                                   ("train", settings, ~mask if not mask.all() else mask, _count(teaching))):
        states = torch.from_numpy(data.observations[some])
        maker = PairMaker(teaching.teacher, teaching.walk, states, own, name)
        sets[name] = packed_pairs(maker, count, folder, origin, options.progress).to(device)
    network = new_student(model.network, teaching.walk.width, settings)
    trainer = StudentTrainer(network, model.schedule, settings, device)
    rate = run_phase(trainer, sets["train"].flatten(0, 1), sets["held-out"].flatten(0, 1), settings.steps,
                     settings.seed, options)
    errors = measure(trainer.ema, sets["held-out"], out / "logs" / FOUND)
    entry = {"walk": asdict(teaching.walk), "teacher": _about(teaching.teacher),
             "settings": settings.to_dict(), "pairs": _count(teaching), "held_out_error": errors,
             "steps_per_second": round(rate, 1) or None}
    sampling = card_entry(student_config(teaching.teacher.config, teaching.walk), teaching.teacher.execution)
    kept = {k: v for k, v in teaching.teacher.card.items() if k not in (
        "weights_sha256", "make_it_again", "versions", "stored", "scores", "budget", FITTED, JUDGED)}
    card = kept | card | {ENTRY: entry, "sampling": sampling}
    drawing = {"student": trainer.ema} if with_teacher else {"network": trainer.ema, "student": None}
    return save_checkpoint(out / "policy", replace(model, card=card, **drawing))


def _about(teacher: Policy) -> dict[str, Any]:
    """What the card says of the teacher."""
    names = ("task", "dataset", "weights_sha256", "make_it_again", "budget")
    return {name: teacher.card[name] for name in names if teacher.card.get(name) is not None}


@torch.no_grad()
def measure(network: ScoreNetwork, pairs: torch.Tensor, where: Path) -> dict[str, Any]:
    """How far the student ends from its teacher on packed held-out ``pairs`` [calls, n, W]: root mean square
    error of an action's entry (of all, and each) beside the spread of the teacher's, and of the weight with
    its correlation. Writes both ends, [n, D] each, to ``where``."""
    from safetensors.torch import save_file

    D = network.latent_dim
    beside = pairs[0, :, D:D + network.state_dim]
    z, target = pairs[0, :, :D] + pairs[0, :, -D - 1:-1], pairs[-1, :, :D] + 2 * pairs[-1, :, -D - 1:-1]
    for step in pairs[:, 0, -1].long():
        z = z + torch.cat([network(rows, states, step) for rows, states in zip(
            z.split(AT_ONCE), beside.split(AT_ONCE), strict=True)])
    z, target = (torch.cat([x[:, :-1].clamp(-1, 1), x[:, -1:]], dim=1).cpu() for x in (z, target))
    with replacing(where) as temporary:
        save_file({"teacher": target.contiguous(), "student": z.contiguous()}, temporary)
    *entries, weight = (agreement(*pair) for pair in zip(target.numpy().T, z.numpy().T, strict=True))
    return {
        "pairs": len(z),
        "action_rmse": round(together([entry.error for entry in entries]), 5),
        "action_spread": round(together([entry.spread for entry in entries]), 5),
        "action_rmse_by_entry": [round(entry.error, 5) for entry in entries],
        "weight_rmse": round(weight.error, 5),
        "weight_spread": round(weight.spread, 5),
        "weight_correlation": None if weight.correlation is None else round(weight.correlation, 4),
    }
