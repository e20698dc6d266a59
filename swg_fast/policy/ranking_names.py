"""The rankings by name, and what each needs. Imports no torch, since the command line's help reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RankingKind:
    """needs: what it reads beside the sampled weights, of `NEEDS`; "ranker" and "critics" are what each of
    their networks says. together: it scores a state's candidates
    against one another, so all of them are kept until the last is drawn."""

    needs: tuple[str, ...] = ()
    together: bool = False


NEEDS = ("expected", "critic", "support", "ranker", "critics")
# A ranking is a line here and a function `score` in the file of its name in `policy.rankings`.
RANKINGS = {
    "max_weight": RankingKind(),
    "expected_weight": RankingKind(("expected",)),
    "max_q": RankingKind(("critic",)),
    "lcb_weight": RankingKind(("ranker",)),
    "lcb_q": RankingKind(("critics",)),
    "softmax": RankingKind(),
    "support": RankingKind(("support",), together=True),
    "chi_squared": RankingKind(together=True),
    "none": RankingKind(),
}
