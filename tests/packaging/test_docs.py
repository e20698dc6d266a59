"""The site that `make docs` builds: no warning, and no module without a place in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
pytest.importorskip("mkdocstrings", reason="the extra 'docs' is not installed")
ROOT = Path(__file__).parents[2]


def test_every_module_has_a_place():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^::: swg_fast\.([\w.]+)$", pages, re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "swg_fast").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "swg_fast").glob("[!_]*.py")}
    rooms = {f"kernels.{path.parent.name}" for path in (ROOT / "kernels").glob("*/__init__.py")}
    modules = {name for name in modules if not name.startswith("cli")}  # their help is their page
    missing = (modules | folders | rooms | {"reference"}) - named
    assert not missing, f"give each of these its ':::' lines on a page of docs/api/: {sorted(missing)}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    tree = tmp_path / "tree" / "swg_fast"  # the package as it is installed
    tree.mkdir(parents=True)
    for path in (*(ROOT / "swg_fast").iterdir(), ROOT / "kernels", ROOT / "reference"):
        (tree / path.name).symlink_to(path)
    out = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")], cwd=ROOT,
        env=os.environ | {"PACKAGE_TREE": str(tree.parent), "NO_MKDOCS_2_WARNING": "1"}, capture_output=True,
        text=True)
    assert out.returncode == 0 and "WARNING" not in out.stderr, out.stderr
    sampling = (tmp_path / "site" / "api" / "sampling" / "index.html").read_text()
    assert 'id="swg_fast.policy.policy.Policy.sample"' in sampling
    assert 'id="swg_fast.kernels.fused.launch.guided_step"' in (
        tmp_path / "site" / "api" / "kernels" / "index.html").read_text()
