"""Numbers in the pages are those of the recorded results."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import make_recording, write_hdf5

from swg_fast.method.networks import ScoreNetwork
from swg_fast.sweep.metrics import metric

ROOT = Path(__file__).parents[2]


def recorded(name):
    """A file that a command of benchmarks/ wrote."""
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def test_speed_tables_come_from_the_bench_json():
    sys.path.insert(0, str(ROOT))
    from benchmarks.bench_table import PAGES, RESULT, markdown

    table = markdown(json.loads(RESULT.read_text()))
    assert "cpu` backend" in table and "SWG-JAX" in table
    for page in PAGES:
        assert table in page.read_text(), f"run python benchmarks/bench_table.py --write ({page.name})"


def test_score_tables_come_from_their_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from score_table import PAGES, SCORES, markdown, markers

    seen = 0
    for path in SCORES.glob("*.json"):
        begin, end = markers(path.stem)
        for page in PAGES:
            text = page.read_text()
            if begin in text:
                table = text.split(begin)[1].split(end)[0].strip()
                assert table == markdown(json.loads(path.read_text())["rows"]), (page.name, path.stem)
                seen += 1
    assert seen >= 3  # umaze on both pages, hopper on one


def test_tables_of_samplers_come_from_their_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from score_table import WALKS, walk_markers, walks

    page = (ROOT / "docs" / "results.md").read_text()
    folders = list(WALKS.iterdir())
    assert folders
    for folder in folders:
        begin, end = walk_markers(folder.name)
        assert page.split(begin)[1].split(end)[0].strip() == walks(folder), folder.name


def test_six_steps_on_the_large_maze_come_from_their_json():
    folder = ROOT / "benchmarks" / "results" / "scores" / "walks" / "antmaze-large-play-v2-weak"
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    score = {(one["sampler"], one["sampler_steps"], row["temperature"]):
             f"{row['normalized_score']:.0f} [{row['interval']['low']:.0f}, {row['interval']['high']:.0f}]"
             for one in found for row in one["rows"]}
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    six = {score.pop((sampler, 6, 0.5)) for sampler in ("dpmpp_2m", "dpmpp_2m_sde")}
    others = sorted(value.split()[0] for (*_, heat), value in score.items() if heat == 0.5)
    assert f"at 0.5 by either solver {' and '.join(six)}, by the others {others[0]} to {others[-1]}." in text
    warm, cool = ([score["ddpm", None, heat], score["dpmpp_2m_sde", 15, heat]] for heat in (0.75, 0.25))
    assert (f"what six do at 0.5, {' and '.join(warm)}, and at 0.25 {' and '.join(cool)}; by DDPM at 1 it is "
            f"{score['ddpm', None, 1.0]}.") in text
    rows = recorded("spread-large-play.json")["rows"]
    far = [sorted(row["kept_from_mean"] for row in rows
                  if row["temperature"] == heat and (row["sampler_steps"] == 6) == few)
           for few, heat in ((True, 0.5), (False, 0.5), (False, 0.75))]
    assert (f"lies {far[0][0]:.2f} to {far[0][-1]:.2f} from their mean by six steps and {far[1][0]:.2f} to "
            f"{far[1][-1]:.2f} by eight and fifteen, which at 0.75 come to {far[2][0]:.2f} and "
            f"{far[2][-1]:.2f} (") in text


def test_the_comparison_with_swg_jax_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from beside_report import JAX, OURS, lines, markdown, tasks

    runs, page = recorded("beside-swg-jax.json")["runs"], (ROOT / "docs" / "results.md").read_text()
    assert markdown(runs) in page
    cells = {(task, *row[:3]): row[3:] for task in tasks(runs) for row in lines(runs, task)}
    times = [sorted(float(row[i].split("(")[1][:-1]) for (_, who, n, rule), row in cells.items()
                    if who == OURS and n == "16") for i in (1, 2, 3)]
    text = " ".join(page.split())
    assert "the critic {:.2f} to {:.2f} times, the diffusion {:.2f} to {:.2f} times, a decision among 16 " \
           "candidates {:.2f} to {:.2f} times".format(*(t[end] for t in times for end in (0, -1))) in text
    (umaze, hopper), choices = tasks(runs), ((OURS, "max_weight"), (OURS, "max_q"), (JAX, "max_q"))
    ours, same, theirs = (cells[umaze, who, "16", rule][0] for who, rule in choices)
    assert f"in {ours} % of the episodes, where `max_q` among the same networks' does in {same} and " \
           f"SWG-JAX in {theirs};" in text
    ours, same, theirs = (cells[hopper, who, "16", rule][0] for who, rule in choices)
    assert f"it has {ours}, {same} and {theirs}." in text
    of_umaze = [row for run in runs if run["what"]["task"] == umaze for row in run["rows"]]
    by_weight, same, theirs = (" and ".join(
        f"{np.mean(row['scores']):.0f}" for row in of_umaze
        if (row["who"], row["select"], row["n_candidates"]) == (*choice, 16)) for choice in choices)
    assert (f"this project's networks have {same}, and SWG-JAX's {theirs}. By the weight they have "
            f"{by_weight}.") in text


def test_behaviours_scores_come_from_their_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from score_table import SCORES, behaviour_text

    page = (ROOT / "docs" / "results.md").read_text()
    every = [json.loads(path.read_text()) for path in SCORES.glob("*.json")]
    known = [found for found in every if "behaviour" in found]
    assert known
    for found in known:
        assert f"behaviour: {behaviour_text(found['behaviour'])}" in " ".join(page.split()), found["task"]


def test_the_doors_table_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from door import markdown

    found = recorded("door.json")
    page = (ROOT / "docs" / "results.md").read_text()
    assert markdown(found) in page
    apart = found["starts"]["deviations"]
    assert f"of {len(apart)} joints by {apart[0]:.1f} to {apart[-1]:.0f} standard" in " ".join(page.split())


@pytest.mark.skipif(find_spec("d4rl") is None, reason="D4RL is not installed")
def test_a_behaviours_score_within_the_limit(monkeypatch, tmp_path):
    """Recorded episodes may be longer than the task's: what they earn later is not the task's."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from score_table import behaviour, behaviour_text

    raw = make_recording(states=39, actions=28, n=310)
    ends = np.isin(np.arange(310), (209, 309))
    raw |= {"rewards": np.full(310, 5.0, np.float32), "terminals": np.zeros(310, bool), "timeouts": ends}
    found = behaviour("door-human-v1", write_hdf5(tmp_path / "door.hdf5", raw))
    low, high = -56.512833, 2880.5693087298737  # D4RL's references
    scores = {steps: 100 * (5.0 * steps - low) / (high - low) for steps in (100, 200, 210)}
    assert found["whole"]["normalized_score"] == pytest.approx((scores[210] + scores[100]) / 2)
    assert found["within"]["normalized_score"] == pytest.approx((scores[200] + scores[100]) / 2)
    assert (found["episodes"], found["mean_length"], found["limit"]) == (2, 155, 200)
    assert behaviour_text(found).endswith("within the task's 200 steps")


def test_experiments_page_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from experiment_tables import PAGE, PLACE, RESULTS, filled

    page = PAGE.read_text()
    assert {name for name, *_ in PLACE.findall(page)} == {path.stem for path in RESULTS.glob("*.json")}
    assert filled(page) == page, "run python benchmarks/experiment_tables.py"
    assert all((ROOT / "docs" / link).is_file() for link in re.findall(r"\]\((experiments/.*?)\)", page))


def test_decisions_table_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from decisions_report import markdown

    found = recorded("decisions-umaze.json")
    assert len(found["parts"]["episodes"]) >= 3 and markdown(found) in (ROOT / "README.md").read_text()


def test_hoppers_decisions_come_from_their_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from decisions_report import markdown

    found = recorded("decisions-hopper.json")
    page = (ROOT / "docs" / "results.md").read_text()
    assert markdown(found) in page
    page, cells = " ".join(page.split()), found["parts"]["states"]
    six, ddpm = ([cells[f"{name} {n}"]["quality"] for n in (1, 256, 1024)] for name in ("default", "ours"))
    assert max(cell["quality"] for cell in cells.values()) < 0
    assert f"in at most {100 * max(cell['positive'] for cell in cells.values()):.0f} % of the states" in page
    assert (f"six steps go from {six[0]:.2f} with one to {six[1]:.2f} with 256 and {six[2]:.2f} with 1,024, "
            f"DDPM from {ddpm[0]:.2f} to {ddpm[1]:.2f} and {ddpm[2]:.2f}") in page
    ranks = {key: cell["rank_correlation"] or 0.0 for key, cell in cells.items()}
    expected = ("ranking", "filter", "all ", "all, no guidance")  # what ranks by the expected weight
    most = [max(rank for key, rank in ranks.items() if key.startswith(expected) == by)
            for by in (False, True)]
    assert f"is at most {most[0]:.2f}, the expected weight's at most {most[1]:.2f}" in page


def test_the_large_mazes_decisions_come_from_their_json():
    found, page = recorded("decisions-large-play.json"), (ROOT / "docs" / "results.md").read_text()
    quality, times = ({key: cell[what] for key, cell in found["parts"][part].items()}
                      for part, what in (("states", "quality"), ("time", "milliseconds")))
    page = " ".join(page.split())
    assert (f"guidance scale {found['settings']['guidance_scale']:.0f}: the kept action's advantage is "
            f"{quality['ranking 16']:.2f} where the sampled weight's is {quality['ours 16']:.2f}, intervals "
            f"overlapping; six steps of `{found['settings']['solver']}` have {quality['solver 16']:.2f}. "
            f"Eager takes {times['eager 16']:.1f} ms a decision, DDPM here {times['ours 16']:.1f}, six steps "
            f"{times['solver 16']:.1f}") in page


def test_environments_table_comes_from_its_json_and_has_every_task(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from environments import markdown

    from swg_fast.envs.tasks import presets

    found = recorded("environments.json")
    assert set(found["tasks"]) == set(presets())
    for task, row in found["tasks"].items():
        preset = presets()[task]
        assert (row["state_dim"], row["action_dim"], row["max_episode_steps"]) == (
            preset.state_dim, preset.action_dim, preset.max_episode_steps), task
        assert row["made"] and row["stepped"] and row["seeded"] and row["rendered"], task
    assert set(found["families"].values()) == {"works"}
    assert markdown(found) in (ROOT / "docs" / "environments.md").read_text()


def test_reliability_table_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from reliability import markdown

    found = recorded("reliability.json")
    assert markdown(found) in (ROOT / "docs" / "reliability.md").read_text()
    assert found["kills"]["kills"] >= 30 and found["kills"]["same_policy"] == found["kills"]["trainings"]
    assert found["bad_inputs"]["passed"] >= 150 and found["bad_inputs"]["failed"] == 0


def test_training_tables_come_from_their_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from training_run import markdown

    found = recorded("training.json")
    assert markdown(found) in (ROOT / "docs" / "cpu-notes.md").read_text()
    assert all(found["whole_run"]["resume"].values())


@pytest.mark.parametrize("name", ["gaussians8", "spiral"])
def test_the_toys_distances_come_from_their_json(name):
    found = recorded(f"toy-{name}-dpmpp_2m_sde.json")
    distances = (each["guided_to_target"] for each in found["distances_by_steps"].values())
    row = f"| {name} | " + " | ".join(f"{distance:.4f}" for distance in distances) + " |"
    assert row in (ROOT / "docs" / "method.md").read_text()


def test_the_kernels_table_comes_from_its_json():
    page = (ROOT / "docs" / "kernel-notes.md").read_text()
    rows = recorded("kernels.json")
    predicted = [row for row in rows if row.get("predicted_thousand_cycles")]
    assert len(predicted) == 10
    for row in predicted:
        config, time = row["config"], row["predicted_thousand_cycles"]
        kernel = "Gluon" if "Gluon" in row["kernel"] else "portable"
        least = " | ".join(str(time["at_least"][pipe]) for pipe in ("tensor", "l2", "special", "issue"))
        assert (f"| {kernel} | {config['hidden_dim']}, `{config['head']}` "
                f"| {config['tile']} x {config['chunk']}, {config['warps']}, {config['stages']} "
                f"| {row['registers']} | {row['stack_bytes']} | {row['shared_bytes']:,} | {time['total']} "
                f"| {least} |") in page


def test_what_a_gpu_measured_comes_from_its_json(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from benchmarks.gpu_table import PAGES, RESULT, filled

    report = json.loads(RESULT.read_text())
    for page in PAGES:
        text = page.read_text()
        assert filled(text, report) == text, "run python benchmarks/gpu_table.py --write"
    readme, notes = (page.read_text() for page in PAGES)
    ceilings = report["ceilings"]["found"]
    bf16, tf32, fp32 = (f"{ceilings[kind + '_flops'] / 1e12:.0f}" for kind in ("bf16", "tf32", "fp32"))
    assert f"{bf16} TFLOP/s in bf16, {tf32} in tf32, {fp32} in fp32" in notes
    assert f"copies {ceilings['copy_bytes_per_second'] / 1e12:.2f} TB/s" in notes
    ours = {row["n_candidates"]: row for row in report["throughput"]["found"]["results"]
            if row["backend"] == "triton"}
    rates = [f"{ours[2**k]['candidates_per_second'] / 1e6:.2f} M at 2^{k}" for k in (17, 20)]
    assert ", ".join(rates) in notes
    low, high = (f"{ours[n]['percent_of_ceiling']:.0f}" for n in (2**14, 2**20))
    assert f"at {low} to {high} % of the rate" in " ".join(readme.split())
    assert f"{low} (16,384) to {high} % (2^20)" in notes
    assert f"{ours[2**17]['candidates_per_second'] / 1e6:.1f} million\n  guided candidates a second" in readme
    assert f"{ours[2**17]['speedup_over_reference']:.1f} times at 2^17" in notes
    peers = {(row["backend"], row["dtype"], row["n_candidates"]): row["milliseconds"]
             for row in report["peers"]["found"]["results"]}
    mine = peers["triton", "bf16", 2**17]
    bf16, fp32, theirs, compiled = (f"{peers[name, kind, 2**17] / mine:.2f} times" for name, kind in (
        ("jax", "bf16"), ("jax", "fp32"), ("swg-jax", "fp32"), ("compile", "bf16")))
    assert f"{bf16} its bf16, {fp32} its fp32" in notes and f"{theirs} SWG-JAX's own" in notes
    assert f"| missed by a hair: {compiled} |" in notes
    plain = " ".join(notes.split())
    assert f"it takes {mine:.1f} to {ours[2**17]['milliseconds']:.1f} ms" in plain
    three_nine = next(row["milliseconds"] for row in report["throughput, Triton 3.9"]["found"]["results"]
                      if (row["backend"], row["n_candidates"]) == ("triton", 2**17))
    slow = next(row["milliseconds"] for row in report["peers before"]["found"]["results"]
                if (row["backend"], row["n_candidates"]) == ("triton", 2**17))
    assert f"{slow:.1f} ms a decision for {three_nine:.1f} (131,072 candidates)" in plain
    decisions = {(row["sampler"], row["n_candidates"]): row["layers"] for row in report["few"]["found"]}
    alone = min(row["milliseconds"] for row in report["layered"]["found"] if row["n_candidates"] == 1024)
    ddpm, six = (decisions[sampler, 1024] for sampler in ("ddpm", "dpmpp_2m_sde"))
    assert (f"missed with 15 steps: {ddpm:.2f} ms (the kernels alone took {alone:.2f} in another run); "
            f"{six:.2f} ms with six steps") in notes
    other = {(row["sampler"], row["n_candidates"]): row["layers"]
             for row in report["few, another host"]["found"]}
    assert (f"same card it was {other['ddpm', 1024]:.2f} ms in all "
            f"({other['dpmpp_2m_sde', 1024]:.2f} with six steps), and within this very run README's tables "
            f"have {ours[1024]['milliseconds']:.2f} and {peers['triton', 'bf16', 1024]:.2f}.") in plain
    one, few = (decisions[sampler, 64] for sampler in ("ddpm", "dpmpp_2m_sde"))
    assert (f"a decision of 64 takes {one:.2f} ms with all 15 steps and\n{few:.2f} ms with six, one of 1,024 "
            f"takes {ddpm:.2f} and {six:.2f} ms") in readme
    parts = ("training before", "training, PyTorch's Adam", "training")
    (slow, *_), critic, diffusion = ([
        next(row["swg_fast"] for row in report[part]["found"] if (row["phase"], row["batch"]) == which)
        for part in parts] for which in (("actor", 1024), ("critic", 256), ("actor", 1024)))
    assert f"| {diffusion[1]:,.0f} ({slow:.0f} before) |" in notes and f"{slow:.0f} steps a second" in notes
    assert (f"| critic {critic[2]:,.0f} steps a second ({critic[1]:,.0f} before), "
            f"diffusion {diffusion[2]:,.0f} ({diffusion[1]:,.0f} before) |") in notes
    busy = report["counters"]["found"]
    assert (f"tensor cores are busy for {busy['tensor cores']:.0f} % of the time, shared memory and L1 for "
            f"{busy['shared memory and L1']:.0f} %, L2 for {busy['L2']:.0f} %") in plain
    steps = 15 * -(-busy["n_candidates"] // (132 * 2 * 64))
    cycles = busy["cycles"] / steps / 1e3
    [model] = [row["predicted_thousand_cycles"]["total"] for row in recorded("kernels-triton-3.6.json")["now"]
               if row["config"]["head"] == "joint"]
    assert (f"under Triton 3.6 {model:.0f} where the counter has {cycles:.0f}: {1 - model / cycles:.0%} low"
            ).replace("%", " %") in plain
    early = next(row for row in report["early"]["found"]["results"] if row["backend"] == "triton")
    assert f"{early['candidates_per_second'] / 1e6:.2f} M at 2^17 with the `early` head" in notes
    assert f"{early['speedup_over_reference']:.1f} times with the `early` head" in notes
    memory = report["memory"]["found"][str(2**20)]
    assert f"| {memory / 1e6:.1f} MB |" in notes and f"take {memory / 2**20:.0f} MiB beyond" in readme


def test_what_triton_3_6_makes_of_the_gluon_kernels_comes_from_its_json():
    """The fault, its mend, and what is left beside Triton 3.9's code, by trips of a warp group's loops."""
    notes = " ".join((ROOT / "docs" / "kernel-notes.md").read_text().split())
    found, newest = recorded("kernels-triton-3.6.json"), recorded("kernels.json")
    rows = {name: next(row for row in rows if row["config"]["head"] == "joint")
            for name, rows in (("before", found["before"]), ("now", found["now"]), ("3.9", [
                row for row in newest if "Gluon" in row["kernel"] and row["config"]["hidden_dim"] == 256]))}
    forward, back = ({name: next(loop for loop in row["matrix_loops"] if loop["products"] == products)
                      for name, row in rows.items()} for products in (2.0, 3.0))
    waits = {name: loop["waits_for_products"] for name, loop in forward.items()}
    assert f"({waits['before']} waits in a trip of the forward loop where {waits['3.9']} do)" in notes
    assert waits["now"] == waits["3.9"]
    more = [loops["now"]["barriers"] - loops["3.9"]["barriers"] for loops in (forward, back)]
    assert more == [2, 3]
    assert "two more into a trip of the forward loop and three into one of the way back" in notes


def test_what_more_candidates_buy_comes_from_the_sweeps_json():
    cells = json.loads((ROOT / "experiments" / "results" / "candidates.json").read_text())["results"]
    assert len(cells) == 54
    found = {}
    for cell in cells:
        task, settings = cell["task"].split("-")[1], cell["settings"]
        found[task, settings["select"], settings["n_candidates"]] = metric(
            "score" if task == "medium" else "success").estimate([cell])

    def score(task, select, n):
        return f"{found[task, select, n].value:.0f}"

    def large(select, n):
        estimate = found["large", select, n]
        return f"{score('large', select, n)} [{estimate.low:.0f}, {estimate.high:.0f}]"

    q, weight, expected = "max_q", "max_weight", "expected_weight"
    page = " ".join((ROOT / "docs" / "experiments.md").read_text().split())
    for text in (
            f"of sixteen on the large maze ({score('large', q, 16)} %) and the lowest of 1,024 "
            f"({score('large', q, 1024)}); on umaze it has {score('umaze', q, 1024)} then, and on hopper "
            f"{score('medium', q, 1024)}, where it had {score('medium', q, 4)} of four",
            f"at 64 on the large maze ({score('large', expected, 64)} %) and has "
            f"{score('large', expected, 1024)} of 1,024",
            f"on the large maze it has {score('large', weight, 16)} of sixteen and "
            f"{score('large', weight, 1024)} of 1,024, on umaze {score('umaze', weight, 4)} of four and "
            f"{score('umaze', weight, 1024)} of 1,024; on hopper {score('medium', weight, 4)} and "
            f"{score('medium', weight, 1024)},",
            "scored {0.value:.1f} [{0.low:.1f}, {0.high:.1f}] in {0.episodes} episodes".format(
                found["medium", weight, 1])):
        assert text in page, text

    def apart(task, above, below, n=1024, m=1024):
        return found[task, above, n].low > found[task, below, m].high

    assert apart("medium", weight, expected) and apart("medium", expected, q) and apart("large", weight, q)
    assert not apart("umaze", weight, q) and not apart("large", weight, expected)
    assert apart("medium", weight, weight, 4)  # what it has of four, above what it has of 1,024
    for task in ("medium", "umaze", "large"):
        best, second, third = (found[task, by, 1024].value for by in (weight, expected, q))
        assert best > second > third
    assert apart("umaze", weight, weight, 4, 1) and all(apart("large", by, weight, 16, 1)
                                                        for by in (weight, expected, q))
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert (f"256 arrive in {large(expected, 256)} % and 1,024 in {large(expected, 1024)}, by the critic in "
            f"{large(q, 256)} and {large(q, 1024)}, by the sampled weight in {large(weight, 256)} and "
            f"{large(weight, 1024)}.") in page


def test_the_shards_figures_come_from_their_json():
    found, page = recorded("shards.json"), (ROOT / "docs" / "sweeps.md").read_text()
    two = next(row for row in found["measured"] if row["actors"] == 2)
    assert f"{two['times_one_actor']:.2f} times what one does, at N = {found['candidates']:,}" in page
    assert f"a call costs {two['milliseconds_of_a_call_of_2']:.0f} ms" in page
    rate = {(row["gpus"], row["n_candidates"]): f"{row['of_linear']:.0%}".replace("%", " %")
            for row in found["model"]}
    assert f"{rate[8, 2**20]} of linear on 8 GPUs and {rate[64, 2**20]} on 64" in page
    assert f"{rate[64, 2**24]} on 64 for 2^24" in page


def test_the_worker_processes_figures_come_from_their_json():
    found = recorded("vector-envs.json")
    page = (ROOT / "docs" / "dependencies.md").read_text()
    hopper, antmaze = (found["tasks"][task] for task in ("hopper-medium-v2", "antmaze-umaze-v2"))
    memory, start = (max(task["ours"][what] / task["AsyncVectorEnv"][what] for task in (hopper, antmaze))
                     for what in ("memory_mb", "start_seconds"))
    assert f"{found['count']} environments on 2 cores" in page
    assert f"{hopper['ours_over_theirs']:.1f} times as many Hopper steps" in page
    assert f"{antmaze['ours_over_theirs']:.1f} times as many Ant Maze steps" in page
    assert f"{memory:.0%}".replace("%", " %") + " of the memory" in page
    assert f"{start:.0%}".replace("%", " %") + " of the time" in page


def test_what_large_play_has_learnt_comes_from_its_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    found, longer = recorded("inspect-large-play.json"), recorded("inspect-large-play-long.json")
    maze, unguided = found["maze"], found["weights"]["guidance 0"]
    positive = unguided["positive"]
    assert f"the maze's {maze['places']:,} places" in page
    assert (f"have a rank correlation of {maze['rank_correlation']:.2f}; "
            f"of the far half {maze['rank_correlation_far']:.2f}") in page
    assert f"rises at only {100 * maze['uphill_far']:.0f} % of the places" in page
    assert f"with the advantage is {unguided['rank_correlation']:.2f} without" in page
    assert (f"in {100 * positive['highest_weight']:.0f} % of the states, "
            f"where {100 * positive['candidates']:.0f} % of all candidates have, "
            f"and an oracle would find one in {100 * positive['oracle']:.0f} %") in page
    assert f"The largest V is {longer['value']['max']:.0f}, where no return exceeds 0" in page
    assert (f"V and nearness correlate {longer['maze']['rank_correlation']:.2f} "
            f"({longer['maze']['rank_correlation_far']:.2f} in the far half") in page


def test_what_large_play_learns_without_norm_comes_from_its_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    raw, norm = (next(each for each in recorded(f"inspect-large-play-{name}.json")["critics"]
                      if each["step"] == 110_000)["maze"] for name in ("raw", "norm"))
    found = [each[name] for each in (raw, norm) for name in ("rank_correlation", "rank_correlation_far")]
    assert ("V and nearness correlate {:.2f} ({:.2f} in the far half) without it, and {:.2f} ({:.2f}) with it"
            .format(*found)) in page


def test_what_counts_as_overturned(monkeypatch):
    """A torso as it stands, on its side and on its back, whichever way it is turned about the vertical."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from maze_ends import upright

    half = np.sqrt(0.5)
    turned = [(1, 0, 0, 0), (half, 0, 0, half), (half, half, 0, 0), (0, 1, 0, 0), (0, half, half, 0)]
    states = np.zeros((5, 29))
    states[:, 3:7] = turned
    assert upright(states) == pytest.approx([1, 1, 0, -1, -1])


def test_falls_are_counted_by_what_the_ant_did_before(monkeypatch):
    """One that walks 0.1 m a step and falls, one that stands and falls, one that walks to the end, one that
    begins on its back."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from maze_ends import falls

    walk, stand = np.stack([np.arange(200) * 0.1, np.zeros(200)], axis=1), np.zeros((200, 2))
    falling, upright = np.where(np.arange(200) < 120, 1.0, -1.0), np.ones(200)
    found = falls([(walk, falling), (stand, falling), (walk, upright), (stand, -upright)])
    # At both ends of an episode half of the 50 steps around are missing; 15 of them are 1.5 m.
    assert found["moving"] == {"steps": 320, "falls": 1, "falls_per_1000_steps": 3.125}
    assert found["still"] == {"steps": 120, "falls": 1, "falls_per_1000_steps": pytest.approx(25 / 3)}


def test_the_heads_have_equal_parameters():
    page = " ".join((ROOT / "docs" / "experiments.md").read_text().split())
    early, joint = (sum(p.numel() for p in ScoreNetwork(11, 3, width, 3, head).parameters())
                    for head, width in (("early", 128), ("joint", 133)))
    assert f"at width 128 has {early:,} parameters, the `joint` one at width 133 {joint:,}." in page


def test_how_large_plays_episodes_end_comes_from_its_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    raw, first = (recorded(f"ends-large-play{name}.json") for name in ("-raw", ""))
    (back, goal, way), other = ([found["counts"][end] for end in ("overturned", "reached", "time_up")]
                                for found in (raw, first))
    episodes = len(raw["episodes"])
    scale, another = (found["sampling"]["guidance_scale"] for found in (raw, first))
    assert (f"Of {episodes} episodes at guidance scale {scale:g}, {back} end on the back, {goal} at the goal "
            f"and {way} on the way; of the policy above at {another:g} it is {other[0]}, {other[1]} "
            f"and {other[2]}") in page
    begin, ended = raw["metres_left"]["begin"], [found["metres_left"]["at"] for found in (raw, first)]
    assert f"falls from {begin:.0f} to {ended[0]:.0f} and {ended[1]:.0f} m" in page


def test_how_the_bundled_large_play_policy_fares_comes_from_its_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    found, maze = recorded("ends-large-play-travel.json"), recorded("inspect-large-play-travel.json")["maze"]
    counts, falls = found["counts"], found["falls"]["moving"]["falls_per_1000_steps"]
    assert (f"Of {len(found['episodes'])} episodes {counts['overturned']} end on the back, "
            f"{counts['reached']} at the goal and {counts['time_up']} on the way") in page
    recorded_steps = found["falls_recorded"]
    assert f"fall {falls:.2f} times in 1,000 steps, as recorded ones do" in page
    assert falls == pytest.approx(recorded_steps["moving"]["falls_per_1000_steps"], rel=0.1)
    still = recorded_steps["still"]["steps"]
    assert still / (still + recorded_steps["moving"]["steps"]) == pytest.approx(0.75, abs=0.03)
    assert (f"correlate {maze['rank_correlation']:.2f} ({maze['rank_correlation_far']:.2f} in the far half; "
            "`benchmarks/results/inspect-large-play-travel.json`)") in page

    def score(name, scale, n=1, select=("none", "expected_weight")):
        rows = recorded(f"scores/antmaze-large-play-v2{name}.json")["rows"]
        row = next(row for row in rows if (row["guidance_scale"], row["n_candidates"]) == (scale, n)
                   and row["select"] in select)
        low, high = (round(row["interval"][end]) for end in ("low", "high"))
        return f"{row['normalized_score']:.0f} [{low}, {high}]"

    assert f"in {score('', 5)} % of 300 episodes" in " ".join((ROOT / "README.md").read_text().split())
    assert (f"in {score('', 5)} % of the episodes at guidance scale 5 where all recorded steps lead to "
            f"{score('-standing-ddpm', 5)}, and in {score('', 7.5)} where they lead to "
            f"{score('-standing-ddpm', 7.5)} at 7.5") in page
    one, four, sixteen, many = (score("-weak", 1, n) for n in (1, 4, 16, 64))
    assert (f"one candidate arrives in {one} % of the episodes, four in {four}, sixteen in "
            f"{sixteen} and 64 in {many}, ranked by the expected weight") in page
    assert f"sixteen candidates arrive in {score('-weak', 0, 16)} % of the episodes" in page
    assert (f"reach the goal in {score('-short', 5)} of 100 episodes at guidance scale 5" in page
            and f"where 105,000 lead to {score('-walking', 5)}" in page)


def test_what_a_fall_costs_comes_from_its_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    first, _, calm = ({tuple(row["metres"]): row for row in run["bands"]}
                      for run in recorded("falls-large-play.json")["runs"])
    cost, less = (run[20, 30]["overturned"]["steps"] - run[20, 30]["upright"]["steps"]
                  for run in (first, calm))
    assert f"20 to 30 m from the goal it costs {cost:.0f} steps" in page
    assert f"falling learning rate make it {less:.0f} steps" in page
    assert first[10, 20]["overturned"]["v"] == pytest.approx(first[20, 30]["upright"]["v"], rel=0.02)
    rates = {name: recorded(f"ends-large-play{name}.json")["falls"]["moving"]["falls_per_1000_steps"]
             for name in ("", "-raw", "-calm", "-cloning")}
    data = recorded("ends-large-play-calm.json")["falls_recorded"]["moving"]["falls_per_1000_steps"]
    assert round(rates[""], 1) == round(rates["-raw"], 1)
    assert (f"fall {rates['']:.1f} times in 1,000 steps** by the policies above, {rates['-calm']:.2f} times "
            f"by the one of that critic and {rates['-cloning']:.2f} times when it clones (guidance scale 0), "
            f"where recorded ants fall {data:.2f} times") in page
    ends = recorded("ends-large-play-calm.json")
    assert f"{ends['counts']['time_up']} of {len(ends['episodes'])}" in page


def test_umazes_falls_come_from_their_json():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    warm, cool = (recorded(f"ends-umaze-wide{name}.json") for name in ("", "-cool"))
    count, less = warm["counts"], cool["counts"]
    assert (f"Of {len(warm['episodes'])} episodes (seed {warm['seed']}) {count['reached']} reach the goal "
            f"and {count['overturned']} overturn, none runs out of time; at temperature "
            f"{cool['sampling']['temperature']} it is {less['reached']} and {less['overturned']}") in page
    assert count["time_up"] == less["time_up"] == 0
    ours, data = (warm[who]["moving"]["falls_per_1000_steps"] for who in ("falls", "falls_recorded"))
    assert f"fall {ours:.2f} times in 1,000 moving steps, recorded ones {data:.2f} times" in page


def test_the_share_of_eagers_time_comes_from_the_decisions():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    cells = recorded("decisions-umaze.json")["parts"]["time"]

    def times(contender):
        return cells["eager 1024"]["milliseconds"] / cells[contender]["milliseconds"]

    assert f"in 1/{times('tree 1024'):.1f} of eager's time" in page
    assert (f"The backend alone takes 1/{times('ours 1024'):.1f}, six steps 1/{times('solver 1024'):.1f}, "
            f"and solver, tree and ranking together 1/{times('all 1024'):.1f}:") in page
    assert f"takes 1/{times('tree 1024'):.1f} of eager's time" in (ROOT / "README.md").read_text()
    kept = recorded("decisions-umaze.json")["parts"]["states"]
    tree, eager, few = (kept[key] for key in ("tree 1024", "ours 1024", "ours 16"))
    assert f"advantage is {tree['quality']:.2f} where eager's is {eager['quality']:.2f}," in page
    assert min(tree["quality"], few["quality"]) > eager["interval"]["low"]  # "within the interval"
