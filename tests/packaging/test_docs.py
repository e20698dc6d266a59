"""The site that `make docs` builds: it has no warning, and a page for every room."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
pytest.importorskip("mkdocstrings", reason="the extra 'docs' is not installed")
ROOT = Path(__file__).parents[2]


def test_every_room_has_a_page():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^::: swg_fast\.(\w+)\n    options:\n      show_submodules: true$", pages, re.M))
    rooms = {path.parent.name for path in (ROOT / "swg_fast").glob("*/__init__.py")}
    rooms.discard("cli")  # its help is its page
    assert rooms == named, "each room has a page in docs/api that shows all of its modules"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")], cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True,
        text=True)
    assert out.returncode == 0 and "WARNING" not in out.stderr, out.stderr
    page = (tmp_path / "site" / "api" / "policy" / "index.html").read_text()
    assert 'id="swg_fast.policy.policy.Policy.sample"' in page
    assert 'id="swg_fast.kernels.fused.launch.sample"' in (
        tmp_path / "site" / "api" / "kernels" / "index.html").read_text()
