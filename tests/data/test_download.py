"""Downloads of D4RL's files from a local server: whole, resumed, interrupted, damaged and missing ones."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import make_recording, write_hdf5

from swg_fast.cli.main import main
from swg_fast.common.errors import Note, UsageError
from swg_fast.data import hashes, load_dataset
from swg_fast.data.download import SERVER, cached, download, remote_path
from swg_fast.envs import d4rl_import
from swg_fast.envs.tasks import presets

TASK = "hopper-medium-v2"
UNLISTED = "relocate-human-v1"  # no hash of it was published


class Server(http.server.ThreadingHTTPServer):
    """One file at every address; ``cut`` ends an answer after that many bytes, ``asked`` records the ranges.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.tag, self.asked, self.paths = content, None, '"1"', [], []
        self.length = None  # what Content-Length says instead
        self.shift = 0  # shifts the part that answers a range
        self.address = f"http://127.0.0.1:{self.server_address[1]}/d4rl"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        server.paths.append(self.path)
        begin = 0
        if asked and self.headers.get("If-Range") == server.tag:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(server.content):
                self.send_error(416)
                return
        body = server.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", server.length or str(len(body)))
        self.send_header("ETag", server.tag)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + server.shift}-{len(server.content) - 1}/*")
        self.end_headers()
        self.wfile.write(body if server.cut is None else body[:server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    raw = make_recording(states=11, actions=3)
    content = write_hdf5(tmp_path / "hopper.hdf5", raw).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(hashes, "published", lambda: {remote_path(TASK): digest})
    with Server(content) as found:
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        yield found
        found.shutdown()


def test_addresses_are_d4rls():
    if not d4rl_import.d4rl_installed():
        pytest.skip("D4RL is not installed")
    infos = d4rl_import.import_d4rl("infos")
    for task in presets():
        assert f"{SERVER}/{remote_path(task)}" == infos.DATASET_URLS[task], task


@pytest.mark.parametrize("length", ["many", "-1", "1e3", "\xb2"])
def test_a_length_that_is_no_number_is_left_aside(server, length):
    server.length = length
    assert download(TASK, mirror=server.address, progress=False).read_bytes() == server.content


def test_whole_and_from_the_cache(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["swg-fast", "download", TASK, "--mirror", server.address, "--quiet"])
    main()
    assert capsys.readouterr().out.startswith(f"{TASK}: {tmp_path}/d4rl/hopper_medium-v2.hdf5 (0.")
    assert cached(TASK).read_bytes() == server.content
    assert server.paths == ["/d4rl/gym_mujoco_v2/hopper_medium-v2.hdf5"]
    assert [path.name for path in cached(TASK).parent.iterdir()] == ["hopper_medium-v2.hdf5"]
    assert load_dataset(TASK).observations.shape[1] == 11  # from the cache: no second request
    assert len(server.paths) == 1


def test_goes_on_where_it_broke_off(server):
    server.cut = 30_000
    with pytest.raises(UsageError, match="run again to continue"):
        download(TASK, mirror=server.address, progress=False)
    assert not cached(TASK).exists()
    server.cut = None
    path = download(TASK, mirror=server.address + "/", progress=False)
    assert path.read_bytes() == server.content
    assert server.asked == [None, "bytes=30000-"]


def test_another_part_than_asked_for_is_refused(server):
    server.cut, server.shift = 30_000, 1
    with pytest.raises(UsageError, match="run again to continue"):
        download(TASK, mirror=server.address, progress=False)
    with pytest.raises(UsageError, match="another part of the file"):
        download(TASK, mirror=server.address, progress=False)
    assert not cached(TASK).exists()


def test_another_file_by_then_begins_anew(server):
    server.cut = 30_000
    with pytest.raises(UsageError):
        download(TASK, mirror=server.address, progress=False)
    server.cut, server.tag = None, '"2"'
    assert download(TASK, mirror=server.address, progress=False).read_bytes() == server.content


def test_killed_after_the_last_byte(server):
    part = cached(TASK).with_name(cached(TASK).name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(server.content)
    part.with_name(part.name + ".from").write_text(f"etag {server.tag}")
    assert download(TASK, mirror=server.address, progress=False).read_bytes() == server.content


def test_what_is_no_hdf5_is_refused_and_not_kept(server):
    server.content = b"<html>moved</html>"
    with pytest.raises(UsageError, match="gave: not a readable HDF5 file"):
        download(TASK, mirror=server.address, progress=False)
    assert not cached(TASK).exists() and not list(cached(TASK).parent.glob("*.part"))


def test_published_hashes_are_of_tasks():
    digests = hashes.published()
    assert set(digests) < {remote_path(task) for task in presets()}
    assert len(set(digests.values())) == 29 and all(re.fullmatch("[0-9a-f]{64}", d) for d in digests.values())


def test_what_is_not_d4rls_file_is_refused_and_not_kept(server, tmp_path):
    server.content = write_hdf5(tmp_path / "other.hdf5", make_recording(states=11, seed=1)).read_bytes()
    with pytest.raises(UsageError, match="is not D4RL's file .* give another address to --mirror"):
        download(TASK, mirror=server.address, progress=False)
    assert not cached(TASK).exists() and not list(cached(TASK).parent.glob("*.part"))


def test_a_file_without_a_published_hash_is_the_same_ever_after(server, tmp_path):
    path = download(UNLISTED, mirror=server.address, progress=False)
    record = path.with_name(path.name + ".sha256")
    assert record.read_text() == f"{hashlib.sha256(server.content).hexdigest()}  {path.name}\n"
    assert download(UNLISTED) == path  # the same file
    other = write_hdf5(tmp_path / "other.hdf5", make_recording(states=11, seed=1)).read_bytes()
    path.write_bytes(other)
    with pytest.raises(UsageError, match="not the file that was first used here.*or give its path to"):
        download(UNLISTED)
    path.unlink()
    server.content = other
    with pytest.raises(UsageError, match="not the file that was first used here.*another address"):
        download(UNLISTED, mirror=server.address, progress=False)
    assert not path.exists()
    record.unlink()
    assert download(UNLISTED, mirror=server.address, progress=False).read_bytes() == other
    record.write_text("no hash")
    with pytest.raises(UsageError, match="holds no SHA-256; delete it"):
        download(UNLISTED)


def test_a_folder_that_takes_no_record(server, monkeypatch):
    path = cached(UNLISTED)
    path.parent.mkdir(parents=True)
    path.write_bytes(server.content)

    def full(target, text):
        raise UsageError(f"{target}: cannot be written")

    monkeypatch.setattr(hashes, "write_text", full)
    with pytest.warns(Note, match="a later change of relocate-human-v1.hdf5 would not be noticed"):
        assert download(UNLISTED) == path


def test_two_at_once(server):
    part = cached(TASK).with_name(cached(TASK).name + ".part")
    part.parent.mkdir(parents=True)
    code = ("import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print(flush=True); sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code, f"{part}.lock"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UsageError, match="another process is downloading it"):
        download(TASK, mirror=server.address, progress=False)
    holder.communicate()


def nowhere():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(("arguments", "word"), [
    (lambda server: [TASK, "--mirror", nowhere()], "cannot be reached"),
    (lambda server: [TASK, "--mirror", "http://no-such-host.invalid"], "cannot be reached"),
    (lambda server: [TASK, "--mirror", "ftp://x"], "begins with http"),
    (lambda server: [TASK, "--mirror", "http://127.0.0.1:nonsense/"], "cannot be reached"),
    (lambda server: [TASK, "hoper-medium-v2", "--mirror", server.address], "did you mean hopper-medium-v2"),
    (lambda server: ["minari:x/y-v0"], "is not D4RL's; 'swg-fast train minari:x/y-v0'"),
    (lambda server: ["antmaze-large-navigate-singletask-v0"], "is not D4RL's"),
])
def test_bad_input_is_one_line(server, arguments, word, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["swg-fast", "download", *arguments(server)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and word in said and said.count("\n") == 1
    assert not server.paths and not cached(TASK).exists()


def test_a_missing_file(server, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(UsageError, match="answers 404"):
        download(TASK, mirror=server.address, progress=False)


def test_no_gym_is_imported(server):
    code = ("import sys\nfor name in ('gym', 'd4rl', 'mujoco_py'): sys.modules[name] = None\n"
            "from swg_fast.data.download import download\n"
            f"download('relocate-human-v1', mirror={server.address!r}, progress=False)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(UsageError, match="cannot be written"):
        download(TASK, mirror=server.address, progress=False)
    assert np.size(server.paths) == 0
