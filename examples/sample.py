"""Draw candidates for one state and look at them.

    python examples/sample.py [POLICY]
"""

from __future__ import annotations

import sys

import numpy as np

import swg_fast


def main() -> None:
    policy = swg_fast.load_policy(sys.argv[1] if len(sys.argv) > 1 else "hopper-medium-v2")
    state = np.random.default_rng(0).normal(size=policy.state_dim).astype(np.float32)
    for scale in (0.0, 1.0, 5.0):
        drawn = policy.sample(state, sampler="ddpm", n_candidates=64, guidance_scale=scale, seed=0,
                              return_candidates=True)
        weights = drawn.candidate_weights[0]  # [64]
        print(f"guidance scale {scale:g}: weights from {weights.min():.2f} to {weights.max():.2f}; candidate "
              f"{int(drawn.indices[0])} is kept")
    print("its action:", drawn.actions[0].numpy().round(3))


if __name__ == "__main__":
    main()
