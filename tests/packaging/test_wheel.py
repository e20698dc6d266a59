"""What is built from this checkout, and under which names it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOMES = {"swg_fast": "swg_fast", "swg_fast/kernels": "kernels", "swg_fast/reference": "reference"}
SOURCES = ("swg_fast", "kernels", "reference", "benchmarks", "tests", "docs", "examples", "experiments",
           ".github")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of a copy of this checkout, the wheel built from that sdist, and what building said."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for path in ROOT.iterdir():
        if path.name in SOURCES:
            shutil.copytree(path, copy / path.name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file() and path.suffix != ".part":
            shutil.copy2(path, copy)
    run = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)],
                         capture_output=True, text=True,
                         env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    assert run.returncode == 0, run.stdout + run.stderr
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel, run.stdout + run.stderr


@pytest.fixture(scope="module")
def names(built):
    return set(zipfile.ZipFile(built[1]).namelist())


def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(archive.read(name))


def test_one_name_at_the_top(names):
    """`kernels` and `reference` belong to others: installing theirs must not overwrite ours."""
    assert {name.split("/")[0].removesuffix(".dist-info") for name in names} == {
        "swg_fast", f"swg_fast-{PROJECT['project']['version']}"}


def test_every_module_of_the_checkout_is_in_the_wheel(names):
    """A package that pyproject.toml does not list would be missing here."""
    expected = set()
    for target, folder in HOMES.items():
        expected |= {f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
                     for path in (ROOT / folder).rglob("*.py")}
    assert len(expected) > 50
    assert {name for name in names if name.endswith(".py")} == expected


def test_what_is_no_module(names):
    """Policies, presets, C, pages: every file beside the modules, Python's caches aside."""
    files = {f"{target}/{path.relative_to(ROOT / folder).as_posix()}" for target, folder in HOMES.items()
             for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert {"swg_fast/envs/presets.toml", "swg_fast/py.typed", "swg_fast/kernels/cpu/native.c",
            "swg_fast/policy/bundled/antmaze-umaze-v2/model.safetensors"} < files
    information = f"swg_fast-{PROJECT['project']['version']}.dist-info/"
    rest = {name for name in names if not name.endswith(".py") and not name.startswith(information)}
    assert rest == files
    assert information + "licenses/LICENSE" in names


def test_building_says_nothing_alarming(built):
    said = built[2].lower()
    assert "successfully built" in said
    for word in ("warning", "deprecat", "****"):
        assert word not in said, built[2]


def test_metadata_is_complete(built):
    found = metadata(built[1])
    assert found["License-Expression"] == "MIT" and found["Author"] == "the swg-fast authors"
    assert found["Requires-Python"] == ">=3.11"
    for field in ("Summary", "Keywords", "Project-URL", "Classifier", "Description-Content-Type"):
        assert found[field], field
    assert set(found.get_all("Provides-Extra")) == set(PROJECT["project"]["optional-dependencies"])
    core = {line for line in found.get_all("Requires-Dist") if "extra ==" not in line}
    only = [line for line in core if "python_version" in line]
    assert {line.split("==")[0].split(">")[0].split("<")[0] for line in only} == {"d4rl", "gym"}


def test_the_sdist_holds_what_the_tests_read(built):
    with tarfile.open(built[0]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("LICENSE", "CITATION.cff", "Makefile", "constraints.txt", "mkdocs.yml", "docs/results.md",
                 "tests/data/golden/joint_a8_s29.npz", "benchmarks/results/cpu-bench.json",
                 "benchmarks/pages/templates/gpu-goals.md", "examples/own_robot.py",
                 "experiments/quick.toml", ".github/workflows/release.yml", "SECURITY.md"):
        assert name in inside, name


def test_the_version_is_written_once_everywhere():
    import swg_fast

    version = PROJECT["project"]["version"]
    assert swg_fast.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
