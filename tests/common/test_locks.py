"""Lock files: refused or waited for, and released after a kill."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from swg_fast import UsageError
from swg_fast.common.locks import file_lock

HOLD = ("import sys; from pathlib import Path; from swg_fast.common.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1]), 'busy'): print(flush=True); sys.stdin.read()")


def test_refused_waited_for_and_released_by_a_kill(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UsageError, match="taken"), file_lock(path, "taken"):
        pass
    killing = threading.Timer(0.5, holder.kill)
    killing.start()
    with file_lock(path, "taken", wait=True):
        assert holder.wait() == -9
    holder.communicate()


def test_an_error_in_the_block_goes_through(tmp_path):
    with pytest.raises(TimeoutError, match="mine"), file_lock(tmp_path / "lock", "taken"):
        raise TimeoutError("mine")
    with file_lock(tmp_path / "lock", "taken"):
        pass
