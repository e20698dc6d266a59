"""Ctrl-C, SIGTERM and SIGHUP end work in order: files stay whole, workers stop, and only one line is
printed."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

BURST = 1.0  # seconds
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop. ``code`` is the exit code that a shell expects."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.code = 128 + number


class _Burst:
    """Raises `Stopped` once for a burst of signals: the second would break into the cleaning up after the
    first. One that comes later stops that too."""

    def __init__(self) -> None:
        self._last = -BURST

    def begins(self) -> bool:
        """Whether the signal that has come is the first of a burst."""
        now, last = time.monotonic(), self._last
        if now - last >= BURST:
            self._last = now
        return self._last != last

    def stop(self, number: int) -> None:
        if self.begins():
            raise Stopped(number)

    def forget(self) -> None:
        self._last = -BURST


_burst = _Burst()


def install() -> None:
    """Makes the signals raise `Stopped`, except those that the process was started to ignore (nohup)."""
    _burst.forget()
    atexit.register(_end_deaf)
    with suppress(ValueError):  # only the main thread can set handlers
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)


def _end_deaf() -> None:
    """Ignores the signals while the interpreter ends: it takes their handlers away, and the rest of a burst
    would kill the process and change its exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restores the signal handlers that a library replaces during the block. A signal that had none keeps the
    library's, which at least cleans up."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    with suppress(ValueError):
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            # An exception during an import turns into another error, with a traceback. No work has begun, so
            # exit at once.
            os.write(2, b"interrupted\n")
            os._exit(128 + number)
        frame = frame.f_back
    _burst.stop(number)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Yields a function that returns the number of the signal that asked to stop, or None, so that work can
    stop where it suits.

    The rest of a burst is no second wish; a later signal raises `Stopped` at once. A signal that the work did
    not look for before its end is raised after the block. Outside the main thread no signal is caught.
    """
    asked: list[int] = []
    ended = False

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            _burst.stop(number)
        else:
            _burst.forget()
            _burst.begins()
            asked.append(number)

    before = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread
        pass
    try:
        yield lambda: asked[0] if asked else None
        ended = True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if ended and asked:
            _burst.forget()
            signal.raise_signal(asked[0])


@contextmanager
def shielded(pool: bool = False) -> Iterator[None]:
    """Delays the signals while worker processes start, since a worker that is stopped half-way prints a
    traceback. The first signal that came meanwhile is raised at the end.

    Workers get Ctrl-C too. It stays blocked in them, since the parent ends them. ``pool``: they are
    multiprocessing's.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # A mask alone delays nothing here: the system may choose a library's thread, which has its own mask, and
    # Python then runs the handler in the main thread. Workers do inherit the mask.
    with held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            if pool:
                # The first worker's start would also start multiprocessing's tracker, which unblocks SIGINT.
                # Start it now, with all signals blocked: it ends by itself, and not before this process.
                from multiprocessing import resource_tracker

                signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
                resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask | {signal.SIGINT})
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def held() -> Iterator[None]:
    """Delays the signals while the block runs, however many come. The first is raised at its end."""
    asked: list[int] = []
    before: dict[int, Any] = {}
    holding = True

    def note(number: int, frame: FrameType | None) -> None:
        if holding:
            asked.append(number)
        else:  # after the block, before the earlier handler is back
            signal.signal(number, before[number])
            signal.raise_signal(number)

    try:
        with suppress(ValueError):  # not the main thread, which alone gets them
            for number in STOPPING:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN and handler is not None:
                    signal.signal(number, note)
                    before[number] = handler
        yield
    finally:
        holding = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked[0])
