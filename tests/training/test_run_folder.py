"""A run's folder on a file system without locks."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from swg_fast.training.run_folder import RunRecord, claimed
from swg_fast.training.settings import TrainSettings


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks_does_not_stop_a_run(tmp_path, monkeypatch, number):
    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claimed(tmp_path / "run", RunRecord(TrainSettings().to_dict(), 10), resume=False):
        assert (tmp_path / "run" / "run.json").is_file()
