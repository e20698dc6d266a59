"""Compiling for GPUs that are not here. In a process of its own: under the interpreter nothing
compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux alone")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("aot") / "rows.json"
    out = subprocess.run(
        [sys.executable, "-m", "swg_fast.cli", "kernels", "--targets", "sm_80,sm_90,sm_100", "--json",
         str(path)],
        capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "0"}, timeout=600)
    assert out.returncode == 0, out.stderr
    return json.loads(path.read_text())


def test_every_shipped_configuration_compiles_and_fits(rows):
    limits = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
    assert {row["target"] for row in rows} == set(limits)
    assert {row["dtype"] for row in rows} == {"bf16", "tf32", "fp32"}
    assert {row["kernel"] for row in rows} == {"sample_kernel", "guided_step_kernel", "keep_best_kernel"}
    for row in rows:
        assert row["shared_bytes"] <= limits[row["target"]], row
        assert 0 < row["registers"] <= 255 and row["code_bytes"] > 0


def test_matrix_instructions(rows):
    """Warpgroup instructions on sm_90 and the tensor memory's on sm_100 for whole tiles in bf16; the
    older ones elsewhere, and for tiles too small for those."""
    for row in rows:
        if row["dtype"] == "bf16" and row["kernel"] != "keep_best_kernel":
            newest = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA"}[row["target"]]
            kind = newest if row["config"]["tile"] >= 64 else "HMMA"
            assert row["matrix_instructions"].get(kind, 0) > 0, row


def test_nothing_spills_where_it_counts(rows):
    """No stack at all for sm_90 in bf16; none in a loop over chunks for any tensor-core kernel."""
    hopper = [row for row in rows if (row["target"], row["dtype"]) == ("sm_90", "bf16")]
    assert {row["config"]["hidden_dim"] for row in hopper} == {64, 128, 256}
    assert {row["config"]["head"] for row in hopper} == {"joint", "early"}
    for row in hopper:
        assert row["stack_bytes"] == 0, row
    for row in rows:
        if row["dtype"] != "fp32":
            assert row["stack_accesses_in_chunk_loops"] == 0, row


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
    assert names == {"B", "N", "M", "first", "tiles", "programs", "T", "k0", "k1", "step"}
    assert all(line.endswith("True") for line in lines), out.stdout
