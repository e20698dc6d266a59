"""Child processes that run a function of this package, wherever the program was started from.

multiprocessing's own children import the caller's main script, may not be started by a daemonic process, and
look for their first modules in the current folder, where anybody may have left a file. These do not.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from swg_fast.common.errors import UsageError, reason

PATIENCE = 5  # seconds in which a child ends when it is asked to
BEGIN = "import sys; sys.path[:] = {path}; from swg_fast.common.children import _main; _main({pipe})"


class Failure(NamedTuple):
    """What a child sends before it ends on an error: why, and whether it ``crashed`` or got bad input."""

    message: str
    crashed: bool = True


class ChildDied(Exception):
    """A child ended without a word. ``code`` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Child:
    """A process that runs ``function(pipe, *arguments)``, all of them pickled; ``pipe`` is its end of ours.

    It ends when this process does. Start it within `interrupts.shielded`.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self.pipe, theirs = Pipe()
            with theirs:
                path = [entry or os.getcwd() for entry in sys.path]
                code = BEGIN.format(path=path, pipe=theirs.fileno())
                flags = [flag for flag in _args_from_interpreter_flags() if flag != "-P"]
                self.process = subprocess.Popen([sys.executable, *flags, "-P", "-c", code],
                                                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            raise UsageError(f"a worker process cannot be started ({reason(error)}); close other programs or "
                             "raise the limits that 'ulimit -a' shows") from error
        with suppress(ConnectionError):  # it has died, which reading from it tells
            self.pipe.send((function, arguments))

    def answer(self, timeout: float | None = None) -> Any:
        """What the child sends next. Raises `ChildDied`, and TimeoutError after so many seconds."""
        try:
            if not self.pipe.poll(timeout):
                raise TimeoutError
            return self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise ChildDied(self.end()) from error

    def end(self) -> int:
        """Ends the process, by force where it does not listen; returns its exit code."""
        self.pipe.close()
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _main(descriptor: int) -> None:
    """The whole life of a child."""
    os.set_inheritable(descriptor, False)
    pipe = Connection(descriptor)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    try:
        function, arguments = pipe.recv()
        function(pipe, *arguments)
    except BaseException as error:
        with suppress(OSError):  # the parent is gone, which may be the error
            pipe.send(Failure(f"{type(error).__name__}: {reason(error)}", not isinstance(error, UsageError)))


def _end_with_parent(descriptor: int) -> None:
    """Ends this process, even one that is stuck in a step, once the other end of the pipe is closed."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)
    hung_up.poll()
    os._exit(1)
