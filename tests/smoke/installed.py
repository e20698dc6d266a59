"""Does the built wheel work where nothing of this checkout is? In a new environment, from an empty folder.

    python -m build && python3.13 tests/smoke/installed.py dist/*.whl

Uses the standard library alone; the new environment is of the Python that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path

LIBRARY = """
import json, sys
from importlib.metadata import files
import numpy as np
import swg_fast
from swg_fast import kernels, reference
import swg_fast.evaluation.bench.peers.compiled

assert swg_fast.__file__.startswith(sys.prefix), swg_fast.__file__
assert {str(f).split("/")[0] for f in files("swg-fast") if ".." not in str(f)} <= {
    "swg_fast", f"swg_fast-{swg_fast.__version__}.dist-info"}
policy = swg_fast.load_policy("antmaze-umaze-v2")
states = np.random.default_rng(0).standard_normal((3, 29))
kept = {name: policy.sample(states, n_candidates=40, temperature=1.0, seed=1, backend=name, dtype="fp32")
        for name in ("reference", "torch", "cpu")}
for name, one in kept.items():
    assert one.indices.tolist() == kept["reference"].indices.tolist(), name
    assert float((one.actions - kept["reference"].actions).abs().max()) < 1e-3, name
print(json.dumps({"version": swg_fast.__version__, "indices": kept["cpu"].indices.tolist()}))
"""


class Place:
    """An empty folder and the environment's programs, with nothing of the caller's Python in the way."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.programs = folder, environment / "bin"
        self.variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self.variables |= {"SWG_FAST_CACHE": str(folder / "cache")}

    def run(self, program: str, *arguments: object, code: int = 0, says: str = "") -> str:
        """What the program printed; fails where its exit code or its words are others."""
        command = [str(self.programs / program), *map(str, arguments)]
        out = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True)
        said = out.stdout + out.stderr
        if out.returncode != code or says not in said or "Traceback" in said:
            raise SystemExit(f"FAILED (exit code {out.returncode}, expected {code} and {says!r})\n"
                             f"$ {program} {' '.join(map(str, arguments))}\n{said}")
        print("ok  ", program, *("..." if "\n" in str(a) else a for a in arguments), flush=True)
        return out.stdout


def check(place: Place) -> None:
    """Everything that needs no dataset and no GPU."""
    place.run("python", "-c", LIBRARY)
    place.run("swg-fast", "--version")
    place.run("swg-fast", "info")
    place.run("swg-fast", "toy", "spiral", "--steps", 20, "--quiet", "--json", "toy.json",
              "--plot", "toy.png")
    place.run("swg-fast", "evaluate", "antmaze-umaze-v2", "-n", 4, "--episodes", 1, "--quiet",
              "--json", "e.json", "--plot", "e.png")
    score = json.loads((place.folder / "e.json").read_text())["normalized_score"]
    assert 0 <= score <= 100, score
    place.run("swg-fast", "bench", "--candidates", 16, "--states", 1, "--hidden-dim", 64, "--repeats", 1,
              "--backends", "torch,cpu", "--quiet")
    for arguments, extra in ((["train", "antmaze-umaze-v2"], "train"),
                             (["import-jax", ".", "--out", "mine"], "jax-import"),
                             (["bench", "--backends", "jax"], "bench"),
                             (["evaluate", "antmaze-umaze-v2", "--video", "v.mp4"], "video")):
        place.run("swg-fast", *arguments, code=2, says=f"pip install 'swg-fast[{extra}]'")
    minor = int(place.run("python", "-c", "import sys; print(sys.version_info.minor)"))
    if minor >= 12:
        place.run("swg-fast", "evaluate", "kitchen-complete-v0", "--episodes", 1, code=2, says="Python 3.11")
    left = sorted(path.name for path in place.folder.iterdir())
    assert left == ["cache", "e.json", "e.png", "toy.json", "toy.png"], left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--environment", type=Path,
                        help="an environment that has the dependencies; the wheel is put into it anew")
    parser.add_argument("--pip", default="", help="more arguments of pip install, such as a constraints file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swg-fast-installed-") as folder:
        environment = options.environment
        if environment is None:
            environment = Path(folder, "environment")
            venv.create(environment, with_pip=True)
        install = [str(environment.resolve() / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        wheel = str(options.wheel.resolve())
        subprocess.run([*install, *options.pip.split(), wheel], check=True)
        subprocess.run([*install, "--force-reinstall", "--no-deps", wheel], check=True)
        empty = Path(folder, "empty")
        empty.mkdir()
        check(Place(empty, environment.resolve()))
    print("the wheel works")


if __name__ == "__main__":
    main()
