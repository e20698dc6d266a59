"""The one exception that means "the user can mend this", and the notes that stop nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """Bad input. The message is one line: the cause, then the mend.

    The command line prints the message alone and exits with code 2; in Python it is an ordinary
    ``ValueError``.
    """


class Note(UserWarning):
    """What a user should know and what stops nothing. The command line prints it in one line."""


def note(text: str) -> None:
    """Warns with a `Note`, the same text once in a process: Python counts by the place that warns."""
    warnings.warn(text, Note, stacklevel=1)


@contextmanager
def opened_by(what: str) -> Iterator[None]:
    """Opens the `UsageError` of the block with ``what`` it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what} {error}") from error


def reason(error: BaseException) -> str:
    """An exception's own words in one line; its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
