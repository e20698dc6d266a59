"""Ctrl-C, SIGTERM and SIGHUP end work in order: files stay whole, workers stop, nothing is printed
but one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

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
    where it suits. A second signal stops at once. Elsewhere than in the main thread nothing is caught."""
    asked: list[int] = []

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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Holds the signals back while a worker process is started: one that has only half of what it is
    told ends in a traceback.

    Ctrl-C, which goes to workers too, stays blocked in them: it is the parent that ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    asked: list[int] = []
    before = {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with suppress(ValueError):  # not the main thread, which is the one that hears them
            for number in STOPPING[1:]:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, lambda number, frame: asked.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if asked:
            os.kill(os.getpid(), asked[0])
