"""Compiles for GPUs that this machine need not have and checks the machine code, in a separate process:
nothing compiles under the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
from conftest import run_cli

pytest.importorskip("triton", reason="Triton exists for Linux alone")
from emulator.compiling import without_interpreter

from swg_fast.cli.ending import run
from swg_fast.kernels.fused.configurations import CONFIGS, GLUON, SHARED_99, SHARED_163, SHARED_227
from swg_fast.kernels.fused.portable.kernels import WHOLE_NUMBERS
from tests.analysis import compile_offline, layered_sources
from tests.analysis.sass_listing import matrix_loops

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARED_BYTES = {80: SHARED_163, 90: SHARED_227, 100: SHARED_227}
# Special-function instructions an entry of the wide layer: a tanh, or an exp and a reciprocal root.
SPECIAL = {"bf16": 1.0, "tf32": 2.0, "fp32": 2.0}
# Arguments of `report` by (target, hidden size, type): one test each, so that parallel runs share the work.
WORK = {key: list(rows) for key, rows in groupby(
    compile_offline.shipped(list(SHARED_BYTES)),
    lambda row: (row["capability"], row["hidden"], row["dtype"]))}


def check_loops(row):
    """Loops over chunks compute no product twice, wait for none at once and use no stack."""
    loops = [loop for loop in row["matrix_loops"] if loop["products"]]
    assert sorted(loop["products"] for loop in loops) == [2.0] * (len(loops) - 1) + [3.0], row
    for loop in loops:
        assert loop["waits_for_products"] <= 2 < sum(loop["matrix_instructions"].values())
        assert loop["special_per_element"] == SPECIAL[row["dtype"]]
        assert loop["stack_accesses"] == 0
    return loops


def overlapping(row):
    """Whether Gluon's loops wait for products only where their source does. If code reads registers of a
    product in flight, ptxas waits for every instruction of every product, as under Triton 3.6."""
    return all(loop["waits_for_products"] <= 4 < sum(loop["matrix_instructions"].values())
               for loop in row["matrix_loops"] if loop["products"])


PORTABLE = CONFIGS[90, 256, "bf16"].many[1]


def test_the_kernel_for_many_candidates():
    """The portable kernel on sm_90 at hidden 256, which runs a large N where the Gluon kernel cannot."""
    row = without_interpreter(compile_offline.report_row, {"capability": 90, "hidden": 256, "dtype": "bf16",
                                               "config": PORTABLE})
    assert row["stack_bytes"] == 0 and row["shared_bytes"] <= SHARED_BYTES[90]
    forward, backward = check_loops(row)
    assert (forward["matrix_instructions"], backward["matrix_instructions"]) == ({"HGMMA": 18}, {"HGMMA": 34})
    assert forward["barriers"] <= 3 and backward["barriers"] <= 4
    # 6 passes of 1 MB of weights over a tile of 128; rows of 256: 7 in float32 and 37 in bf16.
    traffic = row["bytes_per_candidate_and_step"]
    assert traffic == {"weights": 6 * 2**20 / 128, "scratch": 256 * (4 * 7 + 2 * 37)}, traffic


def test_a_serialised_product_is_seen():
    """Finds a wait after every product, and a warp that repeats another's work."""
    product, wait = "HGMMA.64x32x16.F32.BF16 R24, gdesc[UR4], R24", "WARPGROUP.DEPBAR.LE gsb0, 0x0"
    lines = [product, wait] * 16 + ["MUFU.TANH R1, R2"] * 16 + ["STL [R1], R2", "@P0 BRA 0x0"]
    sass = "\n".join(f"        /*{16 * i:04x}*/                   {line} ;" for i, line in enumerate(lines))
    [loop] = matrix_loops(sass, tile=128, chunk=32, hidden=256, warps=8)
    assert loop["matrix_instructions"] == {"HGMMA": 16} and loop["waits_for_products"] == 16
    assert loop["products"] == 1.0 and loop["special_per_element"] == 1.0 and loop["stack_accesses"] == 1
    assert not overlapping({"matrix_loops": [loop]})
    [loop] = matrix_loops(sass, tile=64, chunk=32, hidden=256, warps=8)
    assert loop["products"] == 2.0


@pytest.mark.compiled
@pytest.mark.parametrize("key", WORK, ids=lambda key: "sm_{}-H{}-{}".format(*key))
def test_a_shipped_configuration(key):
    """A configuration compiles and fits. In bf16, whole tiles use warpgroup instructions on sm_90 and
    tensor-memory ones on sm_100; other types and small tiles use older ones. sm_90 in bf16 with whole tiles
    uses no stack; no tensor-core kernel uses it in a loop over chunks. In bf16 at hidden 256 no product is
    computed twice, as far as the code shows it."""
    capability, hidden, dtype = key
    for row in (without_interpreter(compile_offline.report_row, work) for work in WORK[key]):
        assert row["shared_bytes"] <= SHARED_BYTES[capability], row
        assert 0 < row["registers"] <= 255 and row["code_bytes"] > 0
        if row["kernel"] in layered_sources.KERNELS:
            assert row["stack_bytes"] == 0 or capability == 80, row
            assert row["matrix_instructions"] or row["kernel"] == "keep_kernel", row
            continue
        if dtype == "bf16" and row["kernel"] != "keep_best_kernel":
            newest = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}[capability]
            kind = newest if row["config"]["tile"] >= 64 else "HMMA"
            assert row["matrix_instructions"].get(kind, 0) > 0, row
        gluon = "Gluon" in row["kernel"]
        if (capability, dtype) == (90, "bf16") and not gluon and row["config"]["tile"] >= 64:
            assert row["stack_bytes"] == 0, row
        if dtype != "fp32":
            assert row["stack_accesses_in_matrix_loops"] == 0, row
        if (hidden, dtype, row["kernel"]) == (256, "bf16", "sample_kernel") and capability != 100:
            assert len(check_loops(row)) >= 2
        if gluon:  # its two warp groups have separate code
            loops = [loop["products"] for loop in row["matrix_loops"] if loop["special_per_element"]]
            assert loops.count(3.0) == 2 and set(loops) == {2.0, 3.0}, row
            assert overlapping(row), row


def no_way_back(row):
    """Whether an unguided kernel's loops over chunks are a forward pass's alone: of two products or, in the
    early head, of one."""
    found = [loop["products"] for loop in row["matrix_loops"] if loop["products"]]
    return bool(found) and set(found) <= {1.0, 2.0}


@pytest.mark.parametrize("kind,guided,back", [("gluon", False, False), ("portable", False, False),
                                              ("portable", True, True)])
def test_unguided_code_has_no_way_back(kind, guided, back):
    """Nor does it have room for one: less shared memory, and no kept activations in the Gluon kernel's
    scratch."""
    config = GLUON[256] if kind == "gluon" else PORTABLE
    work = {"capability": 90, "hidden": 256, "dtype": "bf16", "config": config, "guided": guided}
    row = without_interpreter(compile_offline.report_row, work)
    assert no_way_back(row) is not back
    assert row["stack_bytes"] == 0
    assert (row["shared_bytes"] < 3 / 4 * SHARED_227) is not back
    if kind == "gluon":
        assert row["bytes_per_candidate_and_step"]["scratch"] == 0
        # 60 million candidates a second on 132 multiprocessors at 1.5 GHz.
        assert row["predicted_thousand_cycles"]["total"] * 1000 < 132 * 1.5e9 / 60e6 * 128


def test_tiles_of_several_states_cost_little_more():
    """By the static model at most 15 % more than tiles of one state; only a state's vector is read for each
    row.
    """
    one, several = (without_interpreter(compile_offline.report_row, {
        "capability": 90, "hidden": 256, "dtype": "bf16", "config": GLUON[256], "mixed": mixed})
        for mixed in (False, True))
    assert several["stack_accesses_in_matrix_loops"] == 0
    totals = [row["predicted_thousand_cycles"]["total"] for row in (one, several)]
    assert totals[1] < 1.15 * totals[0]
    scratch = [row["bytes_per_candidate_and_step"]["scratch"] for row in (one, several)]
    assert scratch[1] - scratch[0] == 4 * 256


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["joint", "early"])
@pytest.mark.parametrize("more", [{"mixed": True}, {"partly": True}], ids=["several states", "interval"])
@pytest.mark.parametrize("kind", ["many", "gluon"])
def test_other_launches_stay_off_the_stack_in_loops(kind, more, head):
    """Tiles of several states, and rows without a way back. A portable tile of several states keeps up to 40
    bytes on the stack between the loops: what a lane knows of its state lives through the whole walk. With
    the early head and an interval it is 72 bytes, and the loops access it twice."""
    config = GLUON[256] if kind == "gluon" else PORTABLE
    row = without_interpreter(compile_offline.report_row, {
        "capability": 90, "hidden": 256, "dtype": "bf16", "config": config, "head": head} | more)
    spills = kind == "many" and head == "early" and "partly" in more
    assert len(row["matrix_loops"]) >= 2 and row["stack_accesses_in_matrix_loops"] <= 2 * spills, row
    assert kind == "gluon" or row["stack_bytes"] <= (72 if spills else 40), row


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", ["bf16", "tf32"])
@pytest.mark.parametrize("capability", [86, 89, 120])
def test_cards_with_99_kib(capability, dtype):
    """Their configurations fit, compute no product twice and use no stack, in tiles of one state and of
    several; the layered kernels fit too."""
    rows = [row for row in compile_offline.shipped([capability]) if row["dtype"] == dtype]
    for work in rows:
        row = without_interpreter(compile_offline.report_row, work)
        assert row["shared_bytes"] <= SHARED_99, row
        if row["kernel"] == "sample_kernel":
            assert row["stack_bytes"] == 0, row
            products = {loop["products"] for loop in row["matrix_loops"] if loop["products"]}
            assert products <= {1.0, 2.0, 3.0}, row


@pytest.mark.compiled
@pytest.mark.parametrize("more", [{"multistep": True, "tree": True, "rank": True}, {"softmax": True},
                                  {"guided": False}], ids=lambda more: " ".join(more))
@pytest.mark.parametrize("head", ["joint", "early"])
@pytest.mark.parametrize("hidden", sorted(GLUON))
def test_the_gluon_loops_stay_off_the_stack(hidden, head, more):
    """No further option of a launch costs registers in the loops over chunks."""
    work = {"capability": 90, "hidden": hidden, "dtype": "bf16", "config": GLUON[hidden], "head": head}
    row = without_interpreter(compile_offline.report_row, work | more)
    assert len(row["matrix_loops"]) >= 2 and row["stack_accesses_in_matrix_loops"] == 0, row
    assert overlapping(row), row
    assert row["shared_bytes"] <= SHARED_BYTES[90]


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["joint", "early"])
def test_all_that_a_search_may_ask_for(head):
    """A solver that reads the last x0, a tree and a ranking at once, in the largest tile. With the early head
    40 bytes are on the stack between the loops over chunks: the numbers of the walk, its phase and its draws.
    """
    work = {"capability": 90, "hidden": 256, "dtype": "bf16", "config": PORTABLE,
            "head": head, "multistep": True, "tree": True, "rank": True}
    row = without_interpreter(compile_offline.report_row, work)
    assert row["stack_bytes"] <= (40 if head == "early" else 0), row
    assert row["stack_accesses_in_matrix_loops"] == 0 and row["matrix_instructions"]["HGMMA"] > 0, row
    assert row["shared_bytes"] <= SHARED_BYTES[90], row


def test_what_ships():
    assert {key[2] for key in WORK} == {"bf16", "tf32", "fp32"}
    assert {key[1] for key in WORK if key[0] == 90 and key[2] == "bf16"} == {64, 128, 256}
    work = [row for rows in WORK.values() for row in rows]
    assert {row.get("kernel", "sample_kernel") for row in work} == {
        *compile_offline.KERNELS, *layered_sources.KERNELS} - {"hoist_kernel"}
    gluon = [row for row in work if row["config"].kind == "gluon"]
    assert {(row["hidden"], row["head"]) for row in gluon} == {(h, head) for h in GLUON for head in
                                                               ("joint", "early")}
    for key, rows in WORK.items():
        assert {row["head"] for row in rows if "kernel" not in row} == {"joint", "early"}, key


def rows_on_file():
    """The report in `benchmarks/results`."""
    return json.loads((ROOT / "benchmarks" / "results" / "kernels.json").read_text())


def test_the_report_on_file_is_of_what_ships():
    """It has exactly one row for each entry of `shipped`. On sm_90 in bf16 the portable kernel's whole tiles
    use no stack, and no kernel uses it in a loop over chunks."""
    def key(config, kernel, target, hidden, dtype, head):
        return (kernel + " (Gluon)" * (config["kind"] == "gluon"), target, hidden, dtype, head,
                *(config[name] for name in ("tile", "chunk", "warps", "stages")))

    work = [row for rows in WORK.values() for row in rows]
    shipped = {key(vars(row["config"]), row.get("kernel", "sample_kernel"), f"sm_{row['capability']}",
                   row["hidden"], row["dtype"], row.get("head", "joint")) for row in work}
    on_file = [key(row["config"] | {"kind": "portable"}, row["kernel"], row["target"],
                   row["config"]["hidden_dim"], row["dtype"], row["config"]["head"])
               for row in rows_on_file()]
    assert set(on_file) == shipped and len(on_file) == len(shipped)
    hopper = [row for row in rows_on_file() if (row["target"], row["dtype"]) == ("sm_90", "bf16")]
    assert all(row["stack_bytes"] == 0 for row in hopper
               if "Gluon" not in row["kernel"] and row["config"]["tile"] >= 64)
    assert all(row["stack_accesses_in_matrix_loops"] == 0 for row in hopper)


def run_analysis(*arguments, cwd):
    """`python -m tests.analysis ARGUMENTS` in ``cwd``, in this process."""
    from tests.analysis.__main__ import main

    return run_cli(*arguments, cwd=cwd, program=partial(run, main))


@pytest.mark.parametrize(("arguments", "word"), [
    (["--jobs", 10**6], "at most"), (["--targets", "h100"], "sm_80"), (["--json", "folder"], "is a folder")])
def test_bad_input(arguments, word, tmp_path):
    (tmp_path / "folder").mkdir()
    out = run_analysis(*arguments, cwd=tmp_path)
    assert out.returncode == 2 and word in out.stderr and out.stderr.count("\n") == 1


def test_the_command_reports_them(tmp_path, monkeypatch):
    [small] = [row for row in WORK[80, 256, "bf16"] if row.get("kernel") == "keep_best_kernel"]
    monkeypatch.setattr("tests.analysis.__main__.shipped",
                        lambda targets: [small] if targets == [80] else [])
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    out = run_analysis("--targets", "sm_80", "--jobs", 1, "--json", "rows.json", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["kernel"] == "keep_best_kernel" and row["target"] == "sm_80" and row["registers"] > 0
    assert "registers" in out.stdout and str(row["shared_bytes"]) in out.stdout


def test_no_seed_or_size_gets_a_kernel_of_its_own():
    """A launcher would make an argument that is 1 a constant, and compile anew for a multiple of 16."""
    program = (
        "from tests.analysis import compile_offline, layered_sources\n"
        "from swg_fast.kernels.fused.portable.kernels import WHOLE_NUMBERS\n"
        "for name, kernel in (compile_offline.KERNELS | layered_sources.KERNELS).items():\n"
        "    for p in kernel.params:\n"
        "        if p.name in (*WHOLE_NUMBERS, 'R', 'S', 'j'): print(name, p.name, p.do_not_specialize)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)},
    )
    lines = out.stdout.splitlines()
    names = {line.split()[1] for line in lines}
    assert names == {*WHOLE_NUMBERS, "R", "S", "j"} and "k0" in names
    assert all(line.endswith("True") for line in lines), out.stdout
