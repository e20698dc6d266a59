"""Ctrl-C, SIGTERM and SIGHUP end work in order: files stay whole, workers stop, nothing is printed
but one line."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop. ``code`` is what a shell expects it to exit with."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.code = 128 + number


def install() -> None:
    """Has the signals raise `Stopped`, those aside that the process was started to ignore (nohup)."""
    with suppress(ValueError):  # not the main thread: signals are not ours to take
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts back the handlers of signals that a library takes for itself meanwhile. A signal without one keeps
    the library's, which at least cleans up."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    with suppress(ValueError):
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            # An exception raised in the midst of an import comes out as some other error, with its
            # traceback. Nothing has been begun yet: go at once.
            os.write(2, b"interrupted\n")
            os._exit(128 + number)
        frame = frame.f_back
    raise Stopped(number)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Yields a function that gives the signal that has asked to stop, if one has, so that work can end
    where it suits. A second signal stops at once, and so does one that came after the work last looked,
    at its end. Elsewhere than in the main thread nothing is caught."""
    asked: list[int] = []
    ended = False

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise Stopped(number)
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
            signal.raise_signal(asked[0])


@contextmanager
def shielded() -> Iterator[None]:
    """Holds the signals back while worker processes are started: one that has only half of what it is
    told ends in a traceback. The first signal that came meanwhile is raised at the end.

    Ctrl-C, which goes to workers too, stays blocked in them: it is the parent that ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    asked: list[int] = []
    before: dict[int, Any] = {}
    holding = True

    def hear(number: int, frame: FrameType | None) -> None:
        if holding:
            asked.append(number)
        else:  # between the last line of the work and the return of the handler that was there
            signal.signal(number, before[number])
            signal.raise_signal(number)

    # A mask alone holds nothing back here: Python runs the handler in the main thread whichever thread the
    # system chose, and the libraries' threads have masks of their own. Workers do inherit the mask.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with suppress(ValueError):  # not the main thread, which is the one that hears them
            for number in STOPPING:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN and handler is not None:
                    before[number] = handler
                    signal.signal(number, hear)
        # The first worker's start would start multiprocessing's tracker too, and unblocks SIGINT as it does.
        # The tracker ends with this process, by itself: a hangup is not to end it before.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask | {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        holding = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked[0])


def end_with_parent() -> None:
    """Ends this worker process when its parent is gone, however that ended: the initializer of a pool,
    whose workers would wait for ever."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
