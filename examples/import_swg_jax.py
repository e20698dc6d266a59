"""Turn a policy that SWG-JAX trained into a folder of swg-fast, and draw an action from it.

    python examples/import_swg_jax.py LOGS/models OUT

LOGS/models is the folder in which SWG-JAX saved actor_params_*.msgpack. The extra
`jax-import` is needed; JAX is not.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

import swg_fast


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: python examples/import_swg_jax.py LOGS/models OUT")
    models, out = sys.argv[1:]
    subprocess.run([sys.executable, "-m", "swg_fast", "import-jax", models, "--out", out], check=True)
    policy = swg_fast.load_policy(out)
    select = "max_q" if policy.model.critic is not None else "max_weight"  # SWG-JAX keeps the highest Q
    kept = policy.sample(np.zeros(policy.state_dim, np.float32), n_candidates=16, select=select, seed=0)
    print(f"{select}: action {kept.actions[0].numpy().round(3)}")


if __name__ == "__main__":
    main()
