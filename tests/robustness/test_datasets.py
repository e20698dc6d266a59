"""Files that are no dataset are refused by name; no link out of a file is followed, nothing large made."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from conftest import make_recording, write_hdf5
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from swg_fast import UsageError, load_dataset
from swg_fast.data.transitions import to_transitions
from swg_fast.envs.action_bounds import ActionBounds

N = 20
GOOD = make_recording(N, 10, states=3, actions=2)


def replaced(**arrays):
    """Writes a recording with some arrays replaced; None leaves one out."""
    return lambda path: write_hdf5(path, {k: v for k, v in (GOOD | arrays).items() if v is not None})


def added(write):
    """Writes a recording whose observations ``write`` makes."""

    def make(path):
        write_hdf5(path, {k: v for k, v in GOOD.items() if k != "observations"})
        with h5py.File(path, "a") as file:
            write(file)

    return make


def with_value(key, value, dtype=None):
    changed = GOOD[key].astype(dtype or GOOD[key].dtype)
    changed.reshape(-1)[3] = value
    return replaced(**{key: changed})


def external_storage(file):
    file.create_dataset("observations", (N, 3), "f4", external=[("elsewhere.bin", 0, N * 12)])


def virtual(source):
    def write(file):
        layout = h5py.VirtualLayout((N, 3), "f4")
        layout[:] = h5py.VirtualSource(source, "hidden", (N, 3))
        if source == ".":
            file["hidden"] = GOOD["observations"]
        file.create_virtual_dataset("observations", layout)

    return write


def declared(shape, **keywords):
    return lambda file: file.create_dataset("observations", shape, "f4", **keywords)


def linked_through(file):
    file["far"] = h5py.ExternalLink("other.h5", "/")
    file["observations"] = h5py.SoftLink("/far/observations")


def circle(file):
    file["a"], file["observations"] = h5py.SoftLink("/observations"), h5py.SoftLink("/a")


BAD = {
    "no actions": (replaced(actions=None), "no 'actions'"),
    "nothing": (lambda path: write_hdf5(path, {}), "no 'obs"),
    "strings": (replaced(observations=np.full((N, 3), b"text")), "dtype"),
    "complex": (replaced(actions=GOOD["actions"].astype(complex)), "dtype complex"),
    "objects": (
        added(lambda file: file.create_dataset("observations", (N, 3), h5py.string_dtype())),
        "dtype object",
    ),
    "records": (replaced(observations=np.zeros((N, 3), [("a", "f4")])), "dtype"),
    "integer actions": (replaced(actions=np.ones((N, 2), np.int64)), "dtype int64"),
    "integer rewards": (replaced(rewards=np.ones(N, np.int32)), "dtype int32"),
    "flat observations": (replaced(observations=np.zeros(N, np.float32)), "has shape"),
    "deep actions": (replaced(actions=np.zeros((N, 2, 1), np.float32)), "has shape"),
    "no action entries": (replaced(actions=np.zeros((N, 0), np.float32)), "has shape"),
    "scalar": (replaced(rewards=np.float32(1)), "has shape"),
    "empty space": (
        added(lambda file: file.create_dataset("observations", data=h5py.Empty("f4"))),
        "of nothing",
    ),
    "no rows": (replaced(**{k: v[:0] for k, v in GOOD.items()}), "0 recorded"),
    "one row": (replaced(**{k: v[:1] for k, v in GOOD.items()}), "1 recorded"),
    "fewer actions": (replaced(actions=GOOD["actions"][:-1]), "19 rows"),
    "NaN": (with_value("actions", np.nan), "NaN"),
    "infinity": (with_value("rewards", np.inf), "infinity"),
    "beyond float32": (with_value("observations", 1e300, np.float64), "1e+300"),
    "huge observations": (with_value("observations", 1e30), "1e+30"),
    "huge actions": (with_value("actions", 1e30), "1e+30"),
    "huge rewards": (with_value("rewards", -1e20), "1e+20"),
    "negative terminals": (with_value("terminals", -1, np.int8), "-1"),
    "half a terminal": (with_value("terminals", 0.5, np.float32), "expected 0 and 1"),
    "timeouts of 7": (with_value("timeouts", 7, np.uint8), "expected 0 and 1"),
    "all ends": (replaced(timeouts=np.ones(N, bool)), "nothing to learn"),
    "no timeouts": (replaced(timeouts=None), "no 'timeouts'"),
    "a group": (added(lambda file: file.create_group("observations")), "a group"),
    "a type": (added(lambda file: file.__setitem__("observations", np.dtype("f4"))), "no array"),
    "dangling link": (
        added(lambda file: file.__setitem__("observations", h5py.SoftLink("/none"))),
        "link to nothing",
    ),
    "link below an array": (
        added(lambda file: file.__setitem__("observations", h5py.SoftLink("/actions/x"))),
        "to nothing",
    ),
    "circle": (added(circle), "circles"),
    "external link": (
        added(lambda file: file.__setitem__("observations", h5py.ExternalLink("/etc/passwd", "x"))),
        "passwd",
    ),
    "external link on the way": (added(linked_through), "another file"),
    "external storage": (added(external_storage), "elsewhere.bin"),
    "virtual": (added(virtual("other.h5")), "virtual dataset"),
    "virtual of itself": (added(virtual(".")), "virtual dataset"),
    "unwritten gigabytes": (added(declared((N, 10**9), chunks=(1, 10**6))), "are stored"),
    "unwritten contiguous": (added(declared((N, 10**8))), "are stored"),
    "unwritten compressed": (
        added(declared((N, 10**9), chunks=(N, 10**4), compression="gzip")),
        "are stored",
    ),
    "text": (lambda path: path.write_text("no HDF5"), "not a readable"),
    "empty file": (lambda path: path.write_bytes(b""), "not a readable"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "nothing there": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name, tmp_path):
    make, word = BAD[name]
    path = tmp_path / "data.hdf5"
    make(path)
    with pytest.raises(UsageError) as error:
        load_dataset(path)
    assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(share, tmp_path):
    path = write_hdf5(tmp_path / "data.hdf5", GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UsageError, match="not a readable"):
        load_dataset(path)


def test_good_files_of_other_kinds(tmp_path):
    """Soft links within the file, compression, chunks, float64 and float16, flags as numbers."""
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        file["in/here"] = GOOD["observations"].astype("f8")
        file["observations"] = h5py.SoftLink("in/here")
        file.create_dataset("actions", data=GOOD["actions"].astype("f2"), compression="gzip", chunks=(7, 2))
        file.create_dataset("rewards", data=np.zeros(N, "f4"), compression="gzip")
        file["terminals"], file["timeouts"] = GOOD["terminals"].astype("f4"), GOOD["timeouts"].astype("u1")
    data = load_dataset(path)
    assert len(data) == len(to_transitions(GOOD)) and data.actions.dtype == np.float32


def test_actions_outside_are_stated(tmp_path):
    path = with_value("actions", 1.5)(tmp_path / "data.hdf5")
    data = load_dataset(path, bounds=ActionBounds.unit(2))
    assert "the actions of 1 of 18 rows lie outside" in data.findings[0].what
    assert np.abs(data.actions).max() < 1
    with pytest.raises(UsageError, match="'actions' reach 1.5, beyond 1, and the bounds .* --action-low"):
        load_dataset(path)
    with pytest.raises(UsageError, match="'actions' reach 50, and their bounds are -1 to 1"):
        load_dataset(with_value("actions", 50)(tmp_path / "far.hdf5"), bounds=ActionBounds.unit(2))


ARRAYS = npst.arrays(
    st.one_of(
        npst.floating_dtypes(),
        npst.integer_dtypes(),
        npst.boolean_dtypes(),
        npst.complex_number_dtypes(),
        npst.byte_string_dtypes(max_len=4),
    ),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.fixed_dictionaries({}, optional={key: ARRAYS for key in GOOD}), st.booleans())
def test_arrays_of_any_type_and_shape(raw, rest):
    """The result is finite float32 transitions of one length, or an error of one line."""
    try:
        data = to_transitions((GOOD | raw) if rest else raw)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    for array in (data.observations, data.next_observations, data.actions, data.rewards):
        assert array.dtype == np.float32 and np.isfinite(array).all() and len(array) == len(data) > 0
