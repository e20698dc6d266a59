"""Every format of dataset passes one gate; what runs beside a command may hang, be full or be missing."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from conftest import make_recording, write_hdf5

from swg_fast import UsageError, load_dataset
from swg_fast.common import interrupts
from swg_fast.data import download as downloads
from swg_fast.data.arrow import check_arrow
from swg_fast.data.gate import Declared, check_sizes
from swg_fast.data.hdf5 import check_tree, unreadable
from swg_fast.data.ogbench import _check_file
from swg_fast.kernels.cpu import c_loops
from swg_fast.kernels.shared import c_compiler

ROWS = {"observations": np.zeros((9, 3), "f4"), "actions": np.zeros((9, 2), "f4"),
        "terminals": np.zeros(9, "f4"), "qpos": np.zeros((9, 4), "f4")}

WIDTH = 1237  # occurs nowhere else in a small file


def tree(write):
    """Checks a file in Minari's layout whose first episode ``write`` adds to."""

    def run(path):
        with h5py.File(path, "w") as file:
            group = file.create_group("episode_0")
            group["rewards"] = np.zeros(9)
            write(group)
        check_tree(path, "minari:x")

    return run


def zipped(save=np.savez, **arrays):
    def run(path):
        save(path.with_suffix(".npz"), **(ROWS | arrays))
        _check_file(path.with_suffix(".npz"))

    return run


def locked(path):
    write_hdf5(path, make_recording(20, 10))
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                          ) as holder:
        holder.stdout.readline()
        try:
            load_dataset(path)
        finally:
            holder.stdin.close()


def ogbenchs(path):
    pytest.importorskip("ogbench")
    rows = {name: np.zeros((9, width), "f4") for name, width in (("actions", 8), ("qpos", 15), ("qvel", 14))}
    np.savez(path.with_suffix(".npz"), **rows, observations=np.full((9, 29), 1e30, "f4"),
             terminals=(np.arange(9) == 8).astype("f4"))
    load_dataset(path.with_suffix(".npz"), task="antmaze-medium-navigate-singletask-v0")


def arrow(edit):
    """Checks a folder in Minari's layout whose one file ``edit`` changes: two rows of `WIDTH` numbers."""

    def run(path):
        pa = pytest.importorskip("pyarrow")
        file = path.parent / "data" / "0" / "part-0.arrow"
        file.parent.mkdir(parents=True)
        column = pa.FixedSizeListArray.from_arrays(np.zeros(2 * WIDTH), WIDTH)
        with pa.ipc.new_file(str(file), pa.schema([("actions", column.type)])) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays([column], names=["actions"]))
        edit(file)
        check_arrow(path.parent / "data", "arrow", "minari:x")

    return run


def wide(width):
    return lambda file: file.write_bytes(file.read_bytes().replace(struct.pack("<i", WIDTH),
                                                                   struct.pack("<i", width)))


def missing_filter(path):
    raise unreadable(str(path), OSError("required filter 'blosc' is not registered"))


GATE = {
    "an external link": (tree(lambda group: group.__setitem__("a", h5py.ExternalLink("x.h5", "/"))), "link"),
    "a soft link": (tree(lambda group: group.__setitem__("a", h5py.SoftLink("/episode_0"))), "is a link"),
    "a circle": (tree(lambda group: group.__setitem__("a", group)), "in circles"),
    "external storage": (tree(lambda group: group.create_dataset("a", (9,), "f4", external=[("x", 0, 36)])),
                         "stored in another file"),
    "unwritten gigabytes": (
        tree(lambda group: group.create_dataset("a", (9, 10**8), "f8", chunks=(1, 10**5))), "are stored"),
    "complex actions": (zipped(actions=ROWS["actions"].astype(complex)), "dtype complex128"),
    "actions as text": (zipped(actions=np.full((9, 2), "a")), "dtype <U1"),
    "integer actions": (zipped(actions=np.zeros((9, 2), int)), "expected floating point"),
    "more than the memory": (lambda path: check_sizes({"a": Declared((2**45,), np.dtype("f4"), 1, True)},
                                                      path.parent, "x"), "are stored"),
    "OGBench's beyond float32's squares": (ogbenchs, "'observations' reach 1e+30"),
    "Arrow's gigabytes": (arrow(wide(2**31 - 1)), "GB of memory"),
    "Arrow's rows that are not there": (arrow(wide(2 * WIDTH)), "not a readable Arrow file"),
    "Arrow cut short": (arrow(lambda file: os.truncate(file, 300)), "not a readable Arrow file"),
    "a link of Arrow's": (arrow(lambda file: (file.parent / "part-1.arrow").symlink_to(file)),
                          "'0/part-1.arrow' is a link"),
    "open elsewhere": (locked, "is open in another program"),
    "a missing filter": (missing_filter, "save it with gzip"),
}


@pytest.mark.parametrize("name", GATE)
def test_a_dataset_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr("swg_fast.common.hardware.available_memory", lambda: 2**33)
    run, word = GATE[name]
    with pytest.raises(UsageError) as error:
        run(tmp_path / "data.hdf5")
    assert word in str(error.value) and "\n" not in str(error.value)


TASK = "hopper-medium-v2"


def linked(suffix):
    def make(folder, part):
        (folder / "mine").write_text("mine")
        part.with_name(part.name + suffix).symlink_to(folder / "mine")

    return make


DOWNLOADS = {
    "a link for the part": (linked(""), "is a link"),
    "a link for its origin": (linked(".from"), "is a link"),
    "a link for its lock": (linked(".lock"), "is a link"),
    "an empty file of the name": (lambda folder, part: part.with_suffix("").write_bytes(b""), "delete it"),
    "an empty answer": (lambda folder, part: None, "gave: not a readable HDF5 file"),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_download_is_refused(name, tmp_path, monkeypatch):
    make, word = DOWNLOADS[name]
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    (tmp_path / "d4rl").mkdir()
    remote = tmp_path / downloads.remote_path(TASK)
    remote.parent.mkdir()
    remote.write_bytes(b"")
    target = downloads.cached(TASK)
    make(tmp_path, target.with_name(target.name + ".part"))
    with pytest.raises(UsageError) as error:
        downloads.download(TASK, mirror=f"file://{tmp_path}", progress=False)
    assert word in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "mine").exists() or (tmp_path / "mine").read_text() == "mine"


def test_a_crawling_server_is_noticed(monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.0)
    pace = downloads._Pace()
    assert not pace.too_slow(10**6) and pace.too_slow(0)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cc").write_text("#!/bin/sh\n/bin/touch ran\n/bin/sleep 60\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(c_compiler, "_hung", set())
    return tmp_path / "cc"


def test_a_hanging_compiler_is_left_with_one_warning(compiler, monkeypatch):
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("PATH", "/bin/nowhere")
    monkeypatch.setattr(c_compiler, "ANSWERING", 0.2)
    with pytest.warns(UserWarning, match="no end after 0 s"):
        assert c_compiler.compiled(c_loops.SOURCE, (), str) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert c_compiler.compiled(c_loops.SOURCE, (), str) is None and c_compiler.compiler() is None


def test_a_compiler_of_the_current_folder_is_not_run(compiler, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", ":.")
    assert c_compiler.compiler() is None and not compiler.with_name("ran").exists()


@pytest.mark.parametrize("error", [">/dev/full", ">&-", ">&- <&-"])
def test_standard_error_may_be_full_or_closed(error):
    command = f"{sys.executable} -m swg_fast download nonsense 2{error}"
    assert subprocess.run(command, shell=True, capture_output=True).returncode == 2


SURROUNDINGS = {
    "an unknown way to draw": ({"MUJOCO_GL": "nonsense"}, "nonsense; set MUJOCO_GL"),
    "a home that is none": ({"HOME": "/dev/null/x", "D4RL_DATASET_DIR": ""}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_environments_in_odd_surroundings(name):
    changes, word = SURROUNDINGS[name]
    code = ("from swg_fast.envs import make_env\nfrom swg_fast import UsageError\n"
            "try: make_env('antmaze-umaze-v2').reset(0)\nexcept UsageError as error: print(error)")
    out = subprocess.run([sys.executable, "-c", code], env=os.environ | changes, capture_output=True,
                         text=True)
    assert out.returncode == 0 and out.stdout.count("\n") == bool(word) and (word or "") in out.stdout, out


def test_a_burst_of_signals_stops_once():
    before = {number: signal.getsignal(number) for number in interrupts.STOPPING}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupts.install()
        cleaned = False
        with pytest.raises(interrupts.Stopped):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                for _ in range(4):
                    signal.raise_signal(signal.SIGINT)
                cleaned = True
        assert cleaned
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
