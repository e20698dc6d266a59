"""What is said while work goes on. A full disk or a reader that has gone must not end the work for it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


def say(text: str) -> None:
    """A line on standard output, if that can be written."""
    Spare("stdout").write(f"{text}\n")


class Spare:
    """Standard output or error by ``name``, for what the work does not depend on. Once it cannot be written,
    the rest goes nowhere."""

    def __init__(self, name: str) -> None:
        self.name, self.stream = name, getattr(sys, name)

    def write(self, text: str) -> int:
        """Writes ``text`` at once."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # closed, too
            with suppress(OSError, ValueError):
                self.stream.close()  # drops what it still holds, which the interpreter would write at its end
            self.stream = open(os.devnull, "w")  # noqa: SIM115  stays open
            setattr(sys, self.name, self.stream)
        return len(text)

    def flush(self) -> None:
        """Nothing is left to write."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
