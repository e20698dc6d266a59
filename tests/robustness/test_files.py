"""Files are written whole or not at all, also through devices and links, and no temporary file stays."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from conftest import make_network

from swg_fast import NoiseSchedule, UsageError
from swg_fast.common.atomic_files import replacing, sweep, temporary_name, write_json
from swg_fast.common.output_paths import check_folder, check_output, check_outputs
from swg_fast.common.read_files import read_json
from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_link_stays_and_its_target_is_replaced(place):
    (place / "old.json").write_text("0")
    (place / "link.json").symlink_to("old.json")
    write_json("link.json", [1])
    assert (place / "link.json").is_symlink() and read_json("old.json") == [1]
    (place / "dangling.json").symlink_to("new.json")
    write_json("dangling.json", [2])
    assert (place / "dangling.json").is_symlink() and read_json("new.json") == [2]


def test_devices_stay_devices():
    check_outputs(json="/dev/null", plot="/dev/null")
    write_json("/dev/null", [1])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(UsageError, match="No space left.*make room"):
        write_json("/dev/full", [1])
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.slow
def test_a_picture_to_a_device_has_a_type():
    from matplotlib.figure import Figure

    with replacing("/dev/null", ".png") as temporary:
        assert temporary.suffix == ".png"
        Figure().savefig(temporary)


def test_a_pipe_is_written_to(place):
    os.mkfifo("pipe")
    check_output("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((place / "pipe").read_text()))
    reader.start()
    write_json("pipe", {"a": 1})
    reader.join(10)
    assert json.loads(found[0]) == {"a": 1} and stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_standard_output_in_a_file(place):
    """Output printed before and after keeps its order."""
    program = ("from swg_fast.common.atomic_files import write_json; print('a'); "
               "write_json('/dev/stdout', 1); print('b')")
    with open("out.txt", "w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (place / "out.txt").read_text() == "a\n1\nb\n"


def test_permissions_are_kept(place):
    (place / "mine.json").write_text("0")
    (place / "mine.json").chmod(0o600)
    write_json("mine.json", 1)
    assert stat.S_IMODE(os.stat("mine.json").st_mode) == 0o600


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("mine"), KeyboardInterrupt()]
)
def test_an_old_file_outlives_a_failure(place, error):
    write_json("a.json", 1)
    with (
        pytest.raises(UsageError if isinstance(error, OSError) else type(error)),
        replacing("a.json") as temporary,
    ):
        temporary.write_text("half")
        raise error
    assert read_json("a.json") == 1 and os.listdir() == ["a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", object()])
def test_what_is_no_json(value):
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        write_json("a.json", value)
    assert not os.listdir()


@pytest.mark.parametrize(
    "path,word",
    [
        (7, "a path was expected"),
        ("a\0b", "null character"),
        (".", "is a folder"),
        ("x" * 300, "too long"),
        ("none/a", "does not exist"),
        ("/proc/a", "cannot be written"),
    ],
    ids=str,
)
def test_bad_outputs(path, word):
    with pytest.raises(UsageError, match=word) as error:
        check_output(path)
    assert "\n" not in str(error.value)


def test_leftovers_of_the_dead_are_swept(place):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    name = temporary_name(place / "model.safetensors").name
    dead = place / name.replace(f".{os.getpid()}-", f".{child.pid}-")
    alive = place / name.replace(f".{os.getpid()}-", f".{os.getppid()}-")
    elsewhere = place / dead.name.replace("-", "-0", 1)[:-1]  # another machine's
    theirs = [place / "notes.part", place / ".a.part.txt", place / f".x.{child.pid}.part"]
    for path in (dead, alive, *theirs):
        path.write_text("")
    assert dead.name != alive.name and elsewhere.name != dead.name
    with replacing("b.json") as temporary:
        temporary.write_text("1")
        sweep(place)
    assert sorted(os.listdir()) == sorted(path.name for path in (alive, *theirs, place / "b.json"))
    dead.write_text("")
    check_outputs(json="c.json")
    assert not dead.exists()


LIMITED = textwrap.dedent("""
    import resource, sys
    import torch
    from conftest import make_network
    from swg_fast import NoiseSchedule, UsageError
    from swg_fast.policy.checkpoint import save_checkpoint
    from swg_fast.policy.model import Model
    from swg_fast.common.atomic_files import replacing

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    def replaced(path, text):
        with replacing(path) as temporary:
            temporary.write_text(text)

    new = Model(make_network(5, 3, 64, seed=1), NoiseSchedule.vp(3))
    for write in (lambda: save_checkpoint("c", new), lambda: replaced("a.txt", "x" * 10_000)):
        try:
            write()
        except UsageError as error:
            assert "ulimit -f" in str(error) and "\\n" not in str(error), error
        else:
            sys.exit("not limited")
""")


@pytest.mark.slow
def test_a_limit_on_file_sizes_is_one_line(place):
    old = save_checkpoint("c", Model(make_network(5, 3, 64), NoiseSchedule.vp(3)))
    (place / "a.txt").write_text("old")
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = f"import swg_fast, sys; sys.path.append({tests!r})\n{LIMITED}"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert torch.equal(load_checkpoint(old).network.input.weight, make_network(5, 3, 64).input.weight)
    assert (place / "a.txt").read_text() == "old" and not list(place.rglob(".*part*"))


def test_folders(place):
    (place / "file").write_text("")
    (place / "nowhere").symlink_to("gone")
    for path in ("file", "file/below", "nowhere", "nowhere/below", "x" * 300, "/proc/below"):
        with pytest.raises(UsageError):
            check_folder(path)
    check_folder("new/folder/below")
    assert sorted(os.listdir()) == ["file", "nowhere"]
