"""Figures of policies in the mazes, for sentences of docs/results.md."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.blocks import block, recorded, score
from benchmarks.pages.scale import candidates_cells
from benchmarks.score_table import WALKS, walked

LARGE = "antmaze-large-play-v2"


def ends(name: str) -> dict[str, int]:
    """The number of episodes in results/ends-NAME.json, and how they ended."""
    found = recorded(f"ends-{name}.json")
    return {"episodes": len(found["episodes"]), **found["counts"]}


def falls(name: str, who: str = "falls") -> float:
    """Falls in 1,000 moving steps."""
    return recorded(f"ends-{name}.json")[who]["moving"]["falls_per_1000_steps"]


@block
def umaze_falls() -> dict[str, Any]:
    cool = ends("umaze-wide-cool")
    return {**ends("umaze-wide"), "seed": recorded("ends-umaze-wide.json")["seed"],
            "cool_reached": cool["reached"], "cool_overturned": cool["overturned"],
            "temperature": recorded("ends-umaze-wide-cool.json")["sampling"]["temperature"],
            "falls": falls("umaze-wide"), "falls_recorded": falls("umaze-wide", "falls_recorded")}


@block
def large_play() -> dict[str, Any]:
    maze = recorded("inspect-large-play-travel.json")["maze"]
    return {**ends("large-play-travel"), "falls": falls("large-play-travel"),
            "near": maze["rank_correlation"], "far": maze["rank_correlation_far"]}


@block
def large_play_candidates() -> dict[str, Any]:
    found = candidates_cells()

    def large(select: str, n: int) -> str:
        estimate = found["large", select, n]
        return f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]"

    return {f"{select}_{n}": large(select, n) for select in ("expected_weight", "max_q", "max_weight")
            for n in (256, 1024)} | {
        f"n_{n}": score(f"{LARGE}-weak", 1, n) for n in (1, 4, 16, 64)} | {
        "unguided": score(f"{LARGE}-weak", 0, 16)}


@block
def large_play_steps() -> dict[str, Any]:
    """Scores by sampler, steps and temperature, and how far a kept candidate lies from their mean."""
    scores = {(one["sampler"], one["sampler_steps"], row["temperature"]):
              f"{row['normalized_score']:.0f} [{row['interval']['low']:.0f}, {row['interval']['high']:.0f}]"
              for one in walked(WALKS / f"{LARGE}-weak")
              for row in one["rows"]}
    six = [scores.pop((sampler, 6, 0.5)) for sampler in ("dpmpp_2m", "dpmpp_2m_sde")]
    others = sorted(value.split()[0] for (*_, heat), value in scores.items() if heat == 0.5)
    far = {name: sorted(row["kept_from_mean"] for row in recorded("spread-large-play.json")["rows"]
                        if row["temperature"] == heat and (row["sampler_steps"] == 6) == few)
           for name, few, heat in (("six", True, 0.5), ("more", False, 0.5), ("warm", False, 0.75))}
    return {"six": six[0] if len(set(six)) == 1 else " and ".join(six), "low": others[0], "high": others[-1],
            "ddpm_warm": scores["ddpm", None, 0.75], "sde_warm": scores["dpmpp_2m_sde", 15, 0.75],
            "ddpm_cool": scores["ddpm", None, 0.25], "sde_cool": scores["dpmpp_2m_sde", 15, 0.25],
            "ddpm_hot": scores["ddpm", None, 1.0]} | {
        f"{name}_{end}": values[at] for name, values in far.items()
        for end, at in (("least", 0), ("most", -1))}


@block
def large_play_standing() -> dict[str, Any]:
    return {"travel_5": score(LARGE, 5), "standing_5": score(f"{LARGE}-standing-ddpm", 5),
            "travel_7": score(LARGE, 7.5), "standing_7": score(f"{LARGE}-standing-ddpm", 7.5),
            "short": score(f"{LARGE}-short", 5), "walking": score(f"{LARGE}-walking", 5)}


@block
def large_play_paper() -> dict[str, Any]:
    """What the critic has learnt, and the value of a decision by another critic."""
    found, judged = recorded("inspect-large-play.json"), recorded("decisions-large-play.json")
    maze, unguided = found["maze"], found["weights"]["guidance 0"]
    quality, times = ({key: cell[what] for key, cell in judged["parts"][part].items()}
                      for part, what in (("states", "quality"), ("time", "milliseconds")))
    return {"places": maze["places"], "near": maze["rank_correlation"], "far": maze["rank_correlation_far"],
            "uphill": 100 * maze["uphill_far"], "weights": unguided["rank_correlation"]} | {
        name: 100 * unguided["positive"][name] for name in ("highest_weight", "candidates", "oracle")} | {
        "scale": judged["settings"]["guidance_scale"], "solver": judged["settings"]["solver"],
        "by_ranking": quality["ranking 16"], "by_weight": quality["ours 16"], "by_six": quality["solver 16"],
        "eager_ms": times["eager 16"], "ours_ms": times["ours 16"], "six_ms": times["solver 16"]}


@block
def large_play_long() -> dict[str, Any]:
    found = recorded("inspect-large-play-long.json")
    return {"largest": found["value"]["max"], "near": found["maze"]["rank_correlation"],
            "far": found["maze"]["rank_correlation_far"]}


@block
def large_play_raw() -> dict[str, Any]:
    """V after 110,000 steps without and with the LayerNorm, and how episodes end."""
    without, norm = (next(each["maze"] for each in recorded(f"inspect-large-play-{name}.json")["critics"]
                          if each["step"] == 110_000) for name in ("raw", "norm"))
    raw, first = (recorded(f"ends-large-play{name}.json") for name in ("-raw", ""))
    return {f"first_{name}": count for name, count in first["counts"].items()} | {
        **ends("large-play-raw"), "scale": raw["sampling"]["guidance_scale"],
        "first_scale": first["sampling"]["guidance_scale"], "begin": raw["metres_left"]["begin"],
        "at": raw["metres_left"]["at"], "first_at": first["metres_left"]["at"],
        "without": without["rank_correlation"], "without_far": without["rank_correlation_far"],
        "norm": norm["rank_correlation"], "norm_far": norm["rank_correlation_far"]}


@block
def large_play_falls() -> dict[str, Any]:
    """The cost of a fall 20 to 30 m from the goal in steps, by the first and the last critic."""
    first, _, calm = recorded("falls-large-play.json")["runs"]
    cost, less = (band["overturned"]["steps"] - band["upright"]["steps"] for run in (first, calm)
                  for band in run["bands"] if band["metres"] == [20, 30])
    return {"cost": cost, "less": less, "falls": falls("large-play"), "calm": falls("large-play-calm"),
            "cloning": falls("large-play-cloning"), "recorded": falls("large-play-calm", "falls_recorded")}


@block
def large_play_calm() -> dict[str, Any]:
    return ends("large-play-calm")
