"""The folder of compiled code: no file is loaded that another user could have written."""

from __future__ import annotations

import os
import warnings

import pytest

from swg_fast.kernels.cpu import c_loops
from swg_fast.kernels.shared import binary_cache, c_compiler

SCRIPT = "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ $1 = -o ] && echo built >$2; shift; done\nexit 0\n"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds with a stand-in for the compiler; returns the path to load and counts the builds."""
    (tmp_path / "cc").write_text(SCRIPT)
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path / "cache"))

    def run():
        paths = []
        found = c_compiler.compiled(c_loops.SOURCE, (), lambda path: paths.append(path) or path.read_text())
        return found, paths[-1] if paths else None

    yield run
    binary_cache.private_folder.cache_clear()
    binary_cache._temporary.cache_clear()


def test_the_folder_is_the_users_alone_and_reused(build, tmp_path):
    found, path = build()
    assert found == "built\n" and path.parent == tmp_path / "cache"
    assert path.parent.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o077 == 0
    when = path.stat().st_mtime_ns
    assert build()[1].stat().st_mtime_ns == when


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text("planted"),
        lambda path: path.unlink(),
        lambda path: path.with_name(path.name + ".sha256").unlink(),
        lambda path: path.with_name(path.name + ".sha256").write_text("x"),
        lambda path: path.chmod(0o777),
        lambda path: (path.rename(path.parent / "a"), path.symlink_to("a")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.with_name(path.name + ".sha256").chmod(0o666),
    ],
    ids=[
        "empty",
        "foreign",
        "gone",
        "no hash",
        "another hash",
        "writable",
        "a link",
        "a pipe",
        "a writable hash",
    ],
)
def test_a_library_that_is_not_what_was_kept_is_built_again(build, damage):
    _, path = build()
    damage(path)
    found, again = build()
    assert found == "built\n" and again == path and not path.is_symlink()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(build, tmp_path, mode):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    binary_cache._folder.cache_clear()
    with pytest.warns(UserWarning, match="others may write"):
        found, path = build()
    assert found == "built\n" and path.parent != tmp_path / "cache" and not os.listdir(tmp_path / "cache")


def test_a_folder_below_one_that_others_may_write_is_not_used(build, tmp_path, monkeypatch):
    (tmp_path / "open" / "cache").mkdir(parents=True, mode=0o700)
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path / "open" / "cache"))
    with pytest.warns(UserWarning, match="others may write to"):
        assert build()[1].parent != tmp_path / "open" / "cache"


def test_another_users_folder_is_not_used(build, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o700)
    binary_cache._folder.cache_clear()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        build()
    assert "belongs to another user" in str(said[0].message) and not os.listdir(tmp_path / "cache")


@pytest.mark.parametrize("place", ["/proc/none", "file", "file/below"])
def test_where_there_is_no_folder_a_private_one_stands_in(build, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWG_FAST_CACHE", str(tmp_path / place))
    with pytest.warns(UserWarning, match="is not used") as said:
        found, path = build()
    assert found == "built\n" and path.parent == binary_cache.private_folder()
    assert "\n" not in str(said[0].message)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_home(build, monkeypatch):
    for name in ("SWG_FAST_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    binary_cache._folder.cache_clear()
    with pytest.warns(UserWarning, match="home directory"):
        assert build()[0] == "built\n"
    binary_cache._folder.cache_clear()


def test_the_users_own_folder_becomes_private(build, tmp_path, monkeypatch):
    monkeypatch.delenv("SWG_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "swg-fast").mkdir(parents=True)
    (tmp_path / "xdg" / "swg-fast").chmod(0o775)
    assert build()[1].parent.stat().st_mode & 0o777 == 0o700
