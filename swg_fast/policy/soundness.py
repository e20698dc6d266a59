"""Numbers stay numbers: what is checked before a search and after it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import check_memory
from swg_fast.common.meta_modules import shapes_only
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import StudentWalk
from swg_fast.policy.backends.job import Samples, SamplingJob
from swg_fast.policy.backends.streaming import DRAWS, Backend
from swg_fast.policy.model import NETWORKS, Model, check_fit


def check_finite(module: nn.Module, what: str) -> None:
    """`UsageError` where a parameter of ``module`` has NaN or infinity, naming the first."""
    named = list(module.named_parameters())
    if any(p.device.type == "meta" for _, p in named):
        raise UsageError(f"{what} lies on the meta device, without numbers; give one with its weights")
    if not named or bool(torch.stack([p.detach().isfinite().all() for _, p in named]).all()):
        return
    name = next(name for name, p in named if not bool(p.detach().isfinite().all()))
    raise UsageError(f"{what}.{name} has NaN or infinity; train it again, or load a sound checkpoint")


def check_model(model: Model) -> None:
    """`UsageError` where the parts of a policy are of wrong types, do not fit or are not finite."""
    kinds: dict[str, type] = {"schedule": NoiseSchedule, **NETWORKS}
    for what, kind in kinds.items():
        value = getattr(model, what)
        needed = what in ("network", "schedule")
        if not (isinstance(value, kind) or (value is None and not needed)):
            wanted = kind.__name__ + ("" if needed else " or None")
            raise UsageError(f"{what}: a {type(value).__name__} was given, expected {wanted}")
    check_fit(model.networks(), model.code_widths)
    _check_walk(model.walk, model.schedule.num_steps)
    for what, part in model.networks():
        check_finite(part, what)
        _check_layers(part, kinds[what], what)


def _check_walk(walk: StudentWalk | None, trained: int) -> None:
    if walk is not None and max(walk.steps[-1], walk.sampler_steps - 1) >= trained:
        raise UsageError(f"the card's student has learnt a walk of {walk.sampler_steps} steps in calls at "
                         f"the trained steps {', '.join(map(str, walk.steps))}, and the schedule has 0.."
                         f"{trained - 1}; card and schedule are from different checkpoints")


def _check_layers(part: Any, kind: Any, what: str) -> None:
    """`UsageError` where ``part`` is not the function that its sizes say: that one a backend computes and a
    checkpoint keeps."""
    with shapes_only():
        plain = kind(**part.config())
    own, sound = ({name: getattr(tensor, "shape", None) for name, tensor in module.state_dict().items()}
                  for module in (part, plain))
    if own != sound or type(part).forward is not kind.forward:
        raise UsageError(f"the {what} computes something else than a {kind.__name__} of its sizes; give one "
                         "of which the weights alone were changed, without pruning, parametrizations or "
                         "quantisation")


def check_room(job: SamplingJob, backend: Backend) -> None:
    """`UsageError` for more memory than there is."""
    B, N, D, kept = len(job.states), job.config.n_candidates, job.plan.latent_dim, job.plan.pool_size
    device, draws = job.states.device, job.plan.ranking.draws if job.plan.ranking is not None else 0
    if job.return_candidates:
        check_memory(B * N * D * 8, f"return_candidates for {B} x {N} candidates",
                     "ask for fewer candidates, or leave it out", device)
    elif job.draws_one:
        return
    held = min(B * N, backend.held(job))
    if job.chunk is not None or held > backend.default_chunk() or draws > DRAWS:
        check_memory(held * backend.bytes_each(job), f"{held} candidates at once (a chunk, a root's leaves)",
                     "use a smaller chunk, fewer leaves or fewer ranking_draws", device)
    if kept > 1:  # the pool, the pool with the next chunk, its order, and what is taken of it
        size = kept * min(B, max(1, held // N))
        check_memory(size * (D * 4 + 16) * 4, f"keeping {kept} of {N} candidates",
                     "keep or average a smaller share, rank otherwise, or draw fewer", device)


def check_samples(samples: Samples, job: SamplingJob, model: Model, backend: str) -> Samples:
    """``samples``, if all is finite; else `UsageError` naming the step at which it first was not."""
    if samples.finite:
        return samples
    parts = [samples.actions, samples.weights]
    if samples.candidates is not None:
        parts.append(samples.candidates)
    # One number to wait for, in few launches; numbers whose sum alone is not finite are looked at below.
    if math.isfinite(sum(part.sum() for part in parts)) or all(bool(part.isfinite().all()) for part in parts):
        return samples
    bad = ~(samples.actions.isfinite().all(dim=1) & samples.weights.isfinite())
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        candidate = int(samples.indices[row])
    else:
        assert samples.candidates is not None  # what else is unsound
        row, place = (int(i) for i in (~samples.candidates.isfinite().all(dim=2)).nonzero()[0])
        candidate = place if job.chosen is None else int(job.chosen[row, place])
    step = _first_bad_step(job, model, row, candidate)
    where = f"candidate {candidate} of state {row} is not finite"
    if step is None:
        raise UsageError(f"{where} with backend {backend}, where the float32 reference is; "
                         "use dtype='fp32' or backend='reference'")
    raise UsageError(f"{where} from denoising step {step} on (steps count down from "
                     f"{job.plan.table.steps[-1]}); look for huge states, weights or betas, or lower "
                     "guidance_scale")


def _first_bad_step(job: SamplingJob, model: Model, row: int, candidate: int) -> int | None:
    """Walks one candidate by the reference; the first step with a value that is not finite."""
    states = slice(row, row + 1)
    words = replace(job, chosen=None).words(states, torch.tensor([candidate], device=job.states.device))
    noise = job.reference_noise(words)
    path = job.reference_path(model.network, model.schedule, job.states[states], noise)
    for i, step in enumerate(reversed(job.plan.table.steps)):
        if not all(bool(part[i].isfinite().all()) for part in (path.eps, path.grad_log_weight)) \
                or not bool(path.z[i + 1].isfinite().all()):
            return step
    return None if bool(path.weight.isfinite().all()) else 0
