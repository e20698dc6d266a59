"""What the kernels' machine code must keep under every supported Triton. `make test-triton` runs this file
with each of them, `make test-compiled` with the one that is installed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux alone")
from emulator.compiling import without_interpreter

from swg_fast.kernels.fused.configurations import CONFIGS, GLUON, LAYERS
from swg_fast.kernels.fused.hopper.triton_compat import VERSIONS
from tests.analysis import compile_offline, triton_versions

pytestmark = pytest.mark.slow

# Waits for products in a trip of the loop forwards, back, and of the early head, which has two products.
WAITS = {("joint", 2.0): {2}, ("joint", 3.0): {3}, ("early", 2.0): {2, 4}, ("early", 3.0): {3}}
MOST_ON_STACK = 5  # accesses in a loop: the early head's at hidden 256, under 3.6 and 3.8


def compiled(config, **more):
    work = {"capability": 90, "dtype": "bf16", "config": config, "hidden": 256} | more
    return without_interpreter(compile_offline.report_row, work)


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["joint", "early"])
@pytest.mark.parametrize("hidden", sorted(GLUON))
def test_the_gluon_loops_wait_for_no_product_at_once(hidden, head):
    """Nor does any loop wait for each instruction of its products, as all of them did under 3.6."""
    row = compiled(GLUON[hidden], hidden=hidden, head=head)
    loops = [loop for loop in row["matrix_loops"] if loop["products"]]
    assert {(head, loop["products"]) for loop in loops} == {key for key in WAITS if key[0] == head}
    for loop in loops:
        assert loop["waits_for_products"] in WAITS[head, loop["products"]], loop
        assert sum(loop["matrix_instructions"].values()) >= 12, loop
        assert loop["stack_accesses"] <= MOST_ON_STACK, loop


@pytest.mark.compiled
def test_the_portable_kernel_keeps_off_the_stack():
    row = compiled(CONFIGS[90, 256, "bf16"].many[1])
    loops = [loop for loop in row["matrix_loops"] if loop["products"]]
    assert sorted(loop["products"] for loop in loops) == [2.0, 3.0]
    assert all(loop["waits_for_products"] <= 2 and loop["stack_accesses"] == 0 for loop in loops)


@pytest.mark.compiled
@pytest.mark.parametrize("kernel", ["up_kernel", "narrow_kernel", "step_kernel"])
def test_the_layered_kernels_compile(kernel):
    row = compiled(LAYERS[0], kernel=kernel)
    assert row["stack_bytes"] == 0 and row["matrix_instructions"]


def test_the_versions_are_those_that_are_installed_with_swg_fast():
    """The first is the lowest that pyproject.toml takes, the last below its upper end."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    [line] = [line for line in project["dependencies"] if line.startswith("triton")]
    low, high = re.search(r">=3\.(\d+),<3\.(\d+)", line).groups()
    minors = [int(version.split(".")[1]) for version in VERSIONS]
    assert minors == list(range(int(low), int(high)))


def test_a_failed_version_fails_the_run(tmp_path, monkeypatch):
    """A version that pip has not is named and left out; none at all is an error, and so is another version
    than the one that was asked for."""
    def run(command, **_):
        out = ""
        if "pip" in command and "triton==3.6.0" in command:
            return subprocess.CompletedProcess(command, 1, "", "no such version")
        if "pip" in command:
            Path(command[command.index("--target") + 1]).mkdir(parents=True)
        elif "-c" in command:
            out = "3.8.0"
        return subprocess.CompletedProcess(command, 0, out, "")

    monkeypatch.setattr(triton_versions, "FOLDER", tmp_path)
    monkeypatch.setattr(triton_versions.subprocess, "run", run)
    old, new, other = map(triton_versions.checked, ("3.6.0", "3.8.0", "3.7.1"))
    assert (old.installed, old.reason) == (False, "no such version")
    assert new.installed and new.passed and not other.passed and "3.8.0" in other.reason
    assert [triton_versions.verdict(found) for found in ([old, new], [old], [new, other])] == [0, 1, 1]
