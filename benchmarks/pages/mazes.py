"""Tables of what was measured in the mazes beside scores, for docs/lab-notes."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.blocks import block, recorded

# Name in results/ends-NAME.json, and what the pages call the policy.
ENDS = {"umaze-wide": "umaze, wide mazes' preset", "umaze-wide-cool": "the same",
        "large-play-travel": "large, bundled", "large-play": "large, the paper's settings",
        "large-play-raw": "large, no LayerNorm", "large-play-calm": "large, calm critic",
        "large-play-cloning": "large, calm critic"}
# The same for results/inspect-large-play-NAME.json.
CRITICS = {"travel": "bundled", "": "the paper's settings", "long": "discount 0.995, twice the steps",
           "raw": "discount 0.995, no LayerNorm", "norm": "discount 0.995, LayerNorm"}


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table; ``head`` has its columns between bars."""
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|",
                      *("| " + " | ".join(row) + " |" for row in rows)])


@block
def ends() -> str:
    """How episodes end, and how often an ant falls."""
    rows = []
    for name, policy in ENDS.items():
        found = recorded(f"ends-{name}.json")
        sampling, counts = found["sampling"], found["counts"]
        fallen = (found[who]["moving"]["falls_per_1000_steps"] for who in ("falls", "falls_recorded"))
        rows.append([policy, *(f"{sampling[key]:g}" for key in ("n_candidates", "guidance_scale",
                                                                "temperature")),
                     *(str(counts[end]) for end in ("reached", "overturned", "time_up")),
                     f"{found['metres_left']['begin']:.0f}, {found['metres_left']['at']:.0f}",
                     *(f"{each:.2f}" for each in fallen)])
    return table("policy | N | guidance | temperature | reached | overturned | out of time | metres left at "
                 "the start, at the end | falls in 1,000 moving steps | the same, recorded", rows)


@block
def critics() -> str:
    """What critics of the large maze know of the way to the goal."""
    rows = []
    for name, critic in CRITICS.items():
        found = recorded(f"inspect-large-play{name and '-'}{name}.json")
        maze, weights = found["maze"], found.get("weights", {}).get("guidance 0")
        rows.append([critic, found["progress"], *(f"{maze[key]:.2f}" for key in (
            "rank_correlation", "rank_correlation_far", "uphill_far")), f"{found['value']['max']:.0f}",
            *([f"{weights['rank_correlation']:.2f}", *(f"{weights['positive'][key]:.2f}" for key in (
                "candidates", "highest_weight", "oracle"))] if weights else ["-"] * 4)])
    return table("critic | progress | V and nearness | the same, far half | V rises, far half | largest V | "
                 "weight and advantage | positive: all | highest weight | oracle", rows)


@block
def falls() -> str:
    """Steps to the goal that each critic sees for upright and for overturned ants, by distance."""
    rows = [[run["run"], run["progress"], *(
        f"{band['upright']['steps']:.0f}, {band['overturned']['steps']:.0f}" for band in run["bands"])]
        for run in recorded("falls-large-play.json")["runs"]]
    bands = (band["metres"] for band in recorded("falls-large-play.json")["runs"][0]["bands"])
    return table("critic | progress | " + " | ".join(f"{low} to {high} m" for low, high in bands), rows)


@block
def spread() -> str:
    """How far the kept candidate lies from the mean of 64, by walk and temperature."""
    return table("sampler | steps | temperature | kept from the mean", [
        [row["sampler"], str(row["sampler_steps"] or "all"), f"{row['temperature']:g}",
         f"{row['kept_from_mean']:.2f}"] for row in recorded("spread-large-play.json")["rows"]])


@block
def advantages(task: str) -> str:
    """The kept action's advantage by another seed's critic, a contender a row and N a column."""
    cells: dict[str, dict[int, dict[str, Any]]] = {}
    for key, cell in recorded(f"decisions-{task}.json")["parts"]["states"].items():
        name, n = key.rsplit(" ", 1)
        cells.setdefault(name, {})[int(n)] = cell
    sizes = sorted({n for found in cells.values() for n in found})
    return table("decision | " + " | ".join(f"N = {n:,}" for n in sizes), [
        [name, *(f"{found[n]['quality']:.2f} [{found[n]['interval']['low']:.2f}, "
                 f"{found[n]['interval']['high']:.2f}]" if n in found else "-" for n in sizes)]
        for name, found in cells.items()])


@block
def decision_times(task: str) -> str:
    """Milliseconds of a decision, a contender a row and N a column."""
    cells: dict[str, dict[int, float]] = {}
    for key, cell in recorded(f"decisions-{task}.json")["parts"]["time"].items():
        name, n = key.rsplit(" ", 1)
        cells.setdefault(name, {})[int(n)] = cell["milliseconds"]
    sizes = sorted({n for found in cells.values() for n in found})
    return table("decision | " + " | ".join(f"N = {n:,}" for n in sizes), [
        [name, *(f"{found[n]:.1f}" if n in found else "-" for n in sizes)] for name, found in cells.items()])
