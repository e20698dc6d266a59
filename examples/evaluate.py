"""Score a policy for several numbers of candidates, and draw the scores with their intervals.

    python examples/evaluate.py [TASK] [--episodes 20] [--candidates 1,4,16] [--plot scores.png]
"""

from __future__ import annotations

import argparse

from matplotlib.figure import Figure

import swg_fast


def main() -> None:
    options = argparse.ArgumentParser(description="Scores by the number of candidates.")
    options.add_argument("task", nargs="?", default="hopper-medium-v2")
    options.add_argument("--episodes", type=int, default=20)
    options.add_argument("--candidates", default="1,4,16")
    options.add_argument("--plot", default="scores.png")
    chosen = options.parse_args()

    policy = swg_fast.load_policy(chosen.task)
    sizes = [int(n) for n in chosen.candidates.split(",")]
    results = [swg_fast.evaluate(policy, chosen.task, n_candidates=n, episodes=chosen.episodes,
                                 progress=False) for n in sizes]
    axes = Figure(layout="constrained").subplots()
    for n, result in zip(sizes, results, strict=True):
        score = result.pooled
        ends = (score.interval.low, score.interval.high) if score.interval else (score.mean, score.mean)
        print(f"N = {n}: {result.score_name} {score.mean:.1f}, 95 % interval {ends[0]:.1f} to {ends[1]:.1f}")
        axes.vlines(str(n), *ends, color="#0072b2")
        axes.plot(str(n), score.mean, "o", color="#0072b2")
    axes.set(xlabel="candidates", ylabel=results[0].score_name, title=chosen.task)
    axes.figure.savefig(chosen.plot, dpi=130)
    print(f"picture: {chosen.plot}")


if __name__ == "__main__":
    main()
