"""What the score is worth by which a policy ranks its candidates: measured by the critic of another training.

A policy's own weight, and its own critic, are no judges of what they have chosen. A critic that was trained
with another seed shares their data but not their errors.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import mean_interval
from swg_fast.evaluation.inspect.measure import PART, Draws, within_states
from swg_fast.method.networks import TwinQ
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.backends.search import asked, ensemble_of, opinions, spread
from swg_fast.policy.checkpoint import find_checkpoint, load_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.policy import Policy
from swg_fast.policy.resolving import judged_settings
from swg_fast.policy.sampling import SamplingConfig

GROWTH = 4  # from one number of candidates to the next
MOST_SETS = 16  # sets of candidates whose kept ones are averaged, where a set is small


class Scored(NamedTuple):
    """Of all candidates of B states, [B, N]: their scores, and what each of the judge's two networks says;
    and of the kept ones, for each n up to N, the judge's standardised values [B]."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray
    kept: dict[int, np.ndarray]


def load_judge(name: str, policy: Policy) -> tuple[TwinQ, str]:
    """The critic of the policy ``name``, and what the figures call it, whatever folder it lies in.

    Raises `UsageError` where it has none, is for other states or actions, or is the critic of ``policy``.
    """
    judge = load_checkpoint(name)
    if judge.critic is None:
        raise UsageError(f"--judge {name}: this policy has no critic; give one that 'swg-fast train' wrote")
    sizes = judge.critic.state_dim, judge.critic.action_dim
    if sizes != (policy.state_dim, policy.action_dim):
        raise UsageError(f"--judge {name}: its critic is for states of {sizes[0]} and actions of {sizes[1]}, "
                         f"the policy for {policy.state_dim} and {policy.action_dim}; give one of the same "
                         f"task ({find_checkpoint(name)})")
    own = policy.model.critic
    if own is not None and all(a.shape == b.shape and torch.equal(a, b) for a, b in
                               zip(own.parameters(), judge.critic.parameters(), strict=True)):
        raise UsageError(f"--judge {name}: its critic is the policy's own, which is no judge of what it has "
                         "learnt; give a training with another seed")
    trained = (judge.card.get("training") or {}).get("settings") or {}
    return judge.critic, (f"critic of {judge.card.get('task') or 'an unnamed task'}, seed "
                          f"{trained.get('seed', 'unknown')}, {trained.get('critic_steps', 'unknown')} steps")


def scores_of(model: Model, states: torch.Tensor, drawn: Samples, config: SamplingConfig) -> torch.Tensor:
    """What ranked, or filtered, the candidates [B, N] of ``states`` [B, S]: the critic's value, an ensemble's
    lower confidence bound, the expected weight, or else the sampled weight."""
    ensemble = ensemble_of(model, config.select)
    if ensemble is not None:
        return spread(ensemble, states, drawn.candidates).lower_bound(config.pessimism)
    if config.select == "max_q":
        return asked(model.critic, states, drawn.candidates)
    return drawn.candidate_weights if drawn.expected_weights is None else drawn.expected_weights


def judged_config(policy: Policy, draws: Draws) -> SamplingConfig:
    """How the judged candidates are drawn and ranked: as ``policy`` does by default, and nobody finishes
    them."""
    config = policy.settings(n_candidates=draws.n_judged)
    scale = config.guidance_scale if draws.guidance_scale is None else draws.guidance_scale
    return replace(config, guidance_scale=scale, finish=None)


@torch.no_grad()
def score_candidates(policy: Policy, judge: TwinQ, states: np.ndarray, draws: Draws) -> Scored:
    """Draws N candidates of each state [B, S] as the policy does by default, then fewer."""
    from tqdm import tqdm

    N, counts, parts = draws.n_judged, counts_up_to(draws.n_judged), []
    config = judged_config(policy, draws)
    common: dict[str, Any] = {"temperature": config.temperature, "guidance_scale": config.guidance_scale,
                              "finish": None}
    for i in tqdm(range(0, len(states), PART), "candidates, judged", unit="part",
                  disable=not draws.progress):
        part = torch.from_numpy(states[i:i + PART])
        common["state_indices"] = np.arange(i, i + len(part))
        drawn = policy.sample(part, n_candidates=N, seed=draws.seed, return_candidates=True, **common)
        both = opinions(judge, part, drawn.candidates)
        mean = both.mean(dim=0)
        centre, deviation = mean.mean(dim=1), mean.std(dim=1).clamp(min=1e-12)
        kept = {}
        for n in counts:
            chosen = [drawn.actions] if n == N else [
                policy.sample(part, n_candidates=n, seed=draws.seed + k, **common).actions
                for k in range(min(MOST_SETS, N // n))]
            values = opinions(judge, part, torch.stack(chosen, dim=1)).mean(dim=0)
            kept[n] = ((values - centre[:, None]) / deviation[:, None]).mean(dim=1).numpy()
        scores = scores_of(policy.model, part, drawn, config)
        parts.append(Scored(scores.numpy(), both[0].numpy(), both[1].numpy(), kept))
    return Scored(np.concatenate([part.scores for part in parts]),
                  np.concatenate([part.first for part in parts]),
                  np.concatenate([part.second for part in parts]),
                  {n: np.concatenate([part.kept[n] for part in parts]) for n in counts})


def counts_up_to(n: int) -> list[int]:
    """1, 4, 16, ... up to ``n``, and ``n``."""
    powers = [GROWTH ** k for k in range(int(math.log(n, GROWTH)) + 1) if GROWTH ** k < n]
    return [*powers, n]


def scorer_figures(found: Scored, judge: str, config: SamplingConfig) -> dict[str, Any]:
    """The figures of `Scored`, drawn by ``config``.

    signal_to_noise is r^2 / (1 - r^2), with the mean rank correlation r of score and judge within a state
    over the square root of that of the judge's two networks (Spearman's correction for the judge's own
    error: an upper bound of it, since the two share their targets). supported is exp(signal to noise), the
    N of arXiv 2603.15377. kept is the judge's value of the kept candidate, in standard deviations of a
    state's candidates above their mean; enough is the smallest n whose value is within a standard error
    of the highest.
    """
    judged = within_states(found.scores, found.first + found.second)
    agreed = within_states(found.first, found.second)
    r, own = (float(part.mean()) if len(part) else 0.0 for part in (judged, agreed))
    true = min(abs(r) / math.sqrt(own), 0.999) if own > 0 else 0.0
    ratio = true * true / (1 - true * true) if r > 0 else 0.0
    kept = {}
    for n, values in found.kept.items():
        interval = mean_interval(values)
        kept[str(n)] = {"mean": float(values.mean()), "interval": asdict(interval) if interval else None}
    best = max(found.kept, key=lambda n: found.kept[n].mean())
    error = found.kept[best].std() / math.sqrt(len(found.kept[best]))
    enough = min(n for n, values in found.kept.items()
                 if values.mean() >= found.kept[best].mean() - error)
    interval = mean_interval(judged)
    return {"judge": judge, "settings": judged_settings(config), "n_states": len(found.scores),
            "n_candidates": int(found.scores.shape[1]), "rank_correlation": r if len(judged) else None,
            "interval": asdict(interval) if interval else None,
            "judge_agreement": own if len(agreed) else None, "signal_to_noise": ratio,
            "supported": math.exp(ratio), "kept": kept, "enough": enough}


def judged(policy: Policy, judge: TwinQ, name: str, states: np.ndarray, draws: Draws) -> dict[str, Any]:
    """The figures of the ranking of ``policy`` by the critic ``judge``, which they call ``name``."""
    found = score_candidates(policy, judge, states, draws)
    return scorer_figures(found, name, judged_config(policy, draws))
