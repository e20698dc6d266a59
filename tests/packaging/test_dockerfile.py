"""The Dockerfile, without Docker: what it copies is there and enough, and its commands are the Makefile's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


class Instruction(NamedTuple):
    """A line of the Dockerfile: its ``word``, such as RUN, and the ``rest``."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


LINES = instructions()


def rests(word: str) -> list[str]:
    return [line.rest for line in LINES if line.word == word]


def sources() -> list[str]:
    return [source for rest in rests("COPY") for source in shlex.split(rest)[:-1]]


def make_arguments() -> list[str]:
    [command] = [rest for rest in rests("RUN") if rest.startswith("make ")]
    return shlex.split(command)[1:]


def test_every_instruction_is_known():
    assert LINES[0].word == "FROM"
    assert {line.word for line in LINES} == {
        "FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}


def test_python_is_one_with_all_of_d4rl():
    [image] = rests("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)[1]
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    [d4rl] = [line for line in PROJECT["dependencies"] if line.startswith("d4rl")]
    limit = re.search(r"python_version < '3\.(\d+)'", d4rl)[1]
    assert int(version.partition(".")[2]) < int(limit)


def test_what_is_copied_is_there_and_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources()) == allowed and all((ROOT / source).exists() for source in sources())
    for rest in rests("COPY"):
        *some, target = shlex.split(rest)
        assert target == "./" or some == [target]  # a folder keeps its name


def test_the_command_is_the_makefiles():
    target, *variables = make_arguments()
    assert re.search(rf"^{target}:", MAKEFILE, re.M)
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in MAKEFILE, variable
    arguments = dict(rest.split("=", 1) for rest in rests("ARG"))
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    assert arguments["PIP_EXTRA_INDEX_URL"].startswith("https://")  # pip reads it
    page = (ROOT / "docs" / "start.md").read_text()
    assert set(re.findall(r"--build-arg (\w+)=", page)) <= set(arguments)


def test_both_installations_have_the_same_torch():
    torch = re.findall(r'"(torch==\S+)"', MAKEFILE)
    assert len(torch) == 2 and len(set(torch)) == 1
    assert torch[0] in (ROOT / "constraints.txt").read_text().split()


def test_the_program_is_ours():
    [entry], [command] = rests("ENTRYPOINT"), rests("CMD")
    assert entry == '["swg-fast"]' and "swg-fast" in PROJECT["scripts"]
    from swg_fast.cli.main import cli

    assert command.strip('[]"') in cli.list_commands(None)


@pytest.mark.slow
def test_what_is_copied_is_enough(tmp_path):
    """The steps in a new folder, where pip installs no dependencies: the program runs from there."""
    place, site = tmp_path / "place", tmp_path / "site"
    place.mkdir()
    for source in sources():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place / source, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    said = subprocess.run(["make", "--dry-run", "--no-print-directory", *make_arguments()], cwd=place,
                          capture_output=True, text=True, check=True).stdout  # make may run this test
    installs = said.strip().splitlines()[-1]
    assert fnmatch(installs, "python -m pip install * -c constraints.txt *.[[]*[]]*"), said
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), "."], cwd=place, check=True)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from swg_fast.__main__ import main; main()"
    out = subprocess.run([sys.executable, "-I", "-c", code, "info"], cwd=tmp_path, capture_output=True,
                         text=True)
    assert out.returncode == 0 and f"swg-fast {PROJECT['version']}" in out.stdout, out.stdout + out.stderr
