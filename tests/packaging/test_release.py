"""Workflows and forms: what would break silently until a release or a user's report."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLASSIFIERS = "\n".join(PROJECT["classifiers"])
PYTHONS = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", CLASSIFIERS, re.M)
SYSTEMS = {"ubuntu-latest": "POSIX :: Linux", "macos-latest": "MacOS"}


def read(name: str) -> dict[str, Any]:
    """A workflow or a form; YAML reads the key ``on`` as True, which stands here as "on"."""
    found = yaml.safe_load((GITHUB / name).read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


WORKFLOWS = {path.name: read(f"workflows/{path.name}") for path in (GITHUB / "workflows").iterdir()}
JOBS = [(file, name, job) for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()]
STEPS = [(file, name, step) for file, name, job in JOBS for step in job.get("steps", [])]


def test_pythons_are_the_same_everywhere():
    assert PYTHONS and PROJECT["requires-python"] == f">={PYTHONS[0]}"
    matrices = [(file, job["strategy"]["matrix"]["python"]) for file, _, job in JOBS if "strategy" in job]
    assert {file for file, _ in matrices} == {"ci.yml", "wheel.yml"}
    assert all(versions == PYTHONS for _, versions in matrices), matrices


def test_every_lower_bound_is_a_version_that_is_tested():
    """`make lint` and `make docs` have tools of their own, which no user needs."""
    extras = PROJECT["optional-dependencies"].items()
    lines = [*PROJECT["dependencies"], *(line for name, found in extras for line in found
                                         if name not in ("all", "dev", "lint", "docs"))]
    bounds = {re.match(r"[\w.-]+", line)[0]: re.search(r"[>=]=([\d.]+)", line)[1] for line in lines}
    pins = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().splitlines()
                if not line.startswith("#"))
    for name, bound in bounds.items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", pins[name]), f"{name}: {bound} and {pins[name]}"
    assert pins.keys() - bounds.keys() == {"dm-control"}


def test_the_wheel_is_tested_on_every_system_that_the_classifiers_name():
    systems = WORKFLOWS["wheel.yml"]["jobs"]["test"]["strategy"]["matrix"]["system"]
    named = re.findall(r"^Operating System :: (.*)$", CLASSIFIERS, re.M)
    assert sorted(SYSTEMS[system] for system in systems) == sorted(named)


def test_every_job_may_read_alone_and_the_publisher_has_a_token_alone():
    for file, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, file
    own = {(file, name): job["permissions"] for file, name, job in JOBS if "permissions" in job}
    assert own == {("release.yml", "publish"): {"id-token": "write"}}
    assert not re.search(r"secrets\.|password:", (GITHUB / "workflows" / "release.yml").read_text())


def test_nothing_is_published_that_was_not_tested():
    release = WORKFLOWS["release.yml"]
    assert release["on"] == {"push": {"tags": ["v*"]}}
    publish, wheel = release["jobs"]["publish"], WORKFLOWS["wheel.yml"]["jobs"]
    assert publish["needs"] == "wheel" and release["jobs"]["wheel"]["needs"] == "tag"
    assert publish["environment"] == "pypi" and wheel["test"]["needs"] == "build"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact", "pypa/gh-action-pypi-publish"]
    handed = [step["with"]["name"] for _, _, step in STEPS if "artifact" in step.get("uses", "")]
    assert len(handed) == 3 and set(handed) == {"dist"}  # built, tested, published


@pytest.mark.parametrize(("tag", "right"), [(f"v{PROJECT['version']}", True), (PROJECT["version"], False),
                                            ("v0.0.0", False)])
def test_the_tag_is_the_version(tag, right):
    [script] = [step["run"] for _, _, step in STEPS if step.get("name") == "The tag is the version"]
    run = subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=os.environ | {"GITHUB_REF_NAME": tag},
                         capture_output=True, text=True)
    assert (run.returncode == 0) == right, run.stdout + run.stderr


def test_what_workflows_run_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    commands = [step["run"] for _, _, step in STEPS if "run" in step]
    made = [name for command in commands for name in re.findall(r"make ([\w-]+)", command)]
    assert {"lint", "docs", "test"} <= set(made) <= set(targets)
    scripts = [path for command in commands for path in re.findall(r"python (\S+\.py)", command)]
    assert "tests/smoke/installed.py" in scripts and all((ROOT / path).is_file() for path in scripts)
    called = [job["uses"] for _, _, job in JOBS if "uses" in job]
    assert len(called) == 2 and all((ROOT / path).is_file() for path in called)
    assert WORKFLOWS["wheel.yml"]["on"] == "workflow_call"


def test_caches_follow_files_that_exist():
    keys = [str(step["with"].get("key", "")) + str(step["with"].get("cache-dependency-path", ""))
            for _, _, step in STEPS if "with" in step]
    named = {name for key in keys for name in re.findall(r"[\w./*-]+\.(?:txt|py)", key)}
    assert "constraints.txt" in named and all(list(ROOT.glob(name)) for name in named), named


@pytest.mark.parametrize("name", ["bug.yml", "idea.yml"])
def test_forms_ask_for_info(name):
    form = read(f"ISSUE_TEMPLATE/{name}")
    assert form["name"] and form["description"] and form["labels"]
    fields = {field["id"]: field for field in form["body"]}
    assert len(fields) == len(form["body"])
    for field in fields.values():
        assert field["type"] == "textarea" and field["attributes"]["label"]
    assert "`swg-fast info`" in fields["info"]["attributes"]["label"]
    assert "validations" not in fields["info"] or fields["info"]["validations"] == {"required": True}


def test_every_form_is_tested():
    forms = {path.name for path in (GITHUB / "ISSUE_TEMPLATE").iterdir()}
    assert forms == {"bug.yml", "idea.yml", "config.yml"}
    assert read("ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": False}
    assert read("ISSUE_TEMPLATE/bug.yml")["body"][-1]["validations"] == {"required": True}


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/versions.md"])
def test_links_of_the_pages_exist(page):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())]
    assert links and all(((ROOT / page).parent / link).exists() for link in links), links


@pytest.mark.parametrize("page", [".github/pull_request_template.md", "docs/versions.md"])
def test_commands_of_the_pages_exist(page):
    named = set(re.findall(r"`make ([\w-]+)`", (ROOT / page).read_text()))
    assert named and named <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
