"""Compiling for GPUs that are not here. In a process of its own: under the interpreter nothing
compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context

import pytest
from conftest import run_cli

pytest.importorskip("triton", reason="Triton exists for Linux alone")
from swg_fast.kernels.fused import aot

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# Arguments of `report` by (target, hidden size, type): a test each, so that parallel runs share the work.
WORK = {key: list(rows) for key, rows in groupby(
    aot.shipped(list(SHARED_BYTES)), lambda row: (row["capability"], row["hidden"], row["dtype"]))}


@pytest.fixture(scope="session")
def compiling():
    """One process that compiles, for all of this session's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(int).result()  # it has started, and with this environment
            yield pool


@pytest.fixture
def rows(key, compiling):
    return list(compiling.map(aot.report_row, WORK[key]))


@pytest.mark.slow
@pytest.mark.parametrize("key", WORK, ids=lambda key: "sm_{}-H{}-{}".format(*key))
def test_a_shipped_configuration(key, rows):
    """It compiles and fits. Matrix instructions: warpgroup's on sm_90 and the tensor memory's on sm_100
    for whole tiles in bf16, the older ones elsewhere, and for tiles too small for those. Nothing spills
    where it counts: no stack at all for sm_90 in bf16, none in a loop over chunks for any tensor-core
    kernel."""
    capability, _, dtype = key
    for row in rows:
        assert row["shared_bytes"] <= SHARED_BYTES[capability], row
        assert 0 < row["registers"] <= 255 and row["code_bytes"] > 0
        if dtype == "bf16" and row["kernel"] != "keep_best_kernel":
            newest = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}[capability]
            kind = newest if row["config"]["tile"] >= 64 else "HMMA"
            assert row["matrix_instructions"].get(kind, 0) > 0, row
        if (capability, dtype) == (90, "bf16"):
            assert row["stack_bytes"] == 0, row
        if dtype != "fp32":
            assert row["stack_accesses_in_chunk_loops"] == 0, row


def test_what_ships():
    assert {key[2] for key in WORK} == {"bf16", "tf32", "fp32"}
    assert {key[1] for key in WORK if key[0] == 90 and key[2] == "bf16"} == {64, 128, 256}
    work = [row for rows in WORK.values() for row in rows]
    assert {row.get("kernel", "sample_kernel") for row in work} == set(aot.KERNELS)
    for key, rows in WORK.items():
        assert {row["head"] for row in rows if "kernel" not in row} == {"joint", "early"}, key


def test_the_command_reports_them(tmp_path, monkeypatch):
    [small] = [row for row in WORK[80, 256, "bf16"] if row.get("kernel") == "keep_best_kernel"]
    monkeypatch.setattr(aot, "shipped", lambda targets: [small] if targets == [80] else [])
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    out = run_cli("kernels", "--targets", "sm_80", "--jobs", 1, "--json", "rows.json", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["kernel"] == "keep_best_kernel" and row["target"] == "sm_80" and row["registers"] > 0
    assert "registers" in out.stdout and str(row["shared_bytes"]) in out.stdout


def test_no_seed_or_size_gets_a_kernel_of_its_own():
    """A launcher would make a constant of an argument that is 1, and compile anew for a multiple of 16."""
    program = ("from swg_fast.kernels.fused.aot import KERNELS\n"
               "from swg_fast.kernels.fused.sample import WHOLE_NUMBERS\n"
               "for name, kernel in KERNELS.items():\n"
               "    for p in kernel.params:\n"
               "        if p.name in WHOLE_NUMBERS: print(name, p.name, p.do_not_specialize)")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                         env=os.environ | {"TRITON_INTERPRET": "0"})
    lines = out.stdout.splitlines()
    names = {line.split()[1] for line in lines}
    assert names == {"B", "N", "M", "first", "tiles", "programs", "rows", "T", "k0", "k1", "step"}
    assert all(line.endswith("True") for line in lines), out.stdout
