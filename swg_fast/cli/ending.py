"""How a command ends: in one line for bad input (exit code 2), for signals and for a full output."""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import Any, NoReturn, TextIO, cast

import click

from swg_fast.common.errors import Note, UsageError
from swg_fast.common.progress import Spare

NO_MEMORY = "memory ran out; use smaller sizes, or close other programs"


def run(command: click.Command) -> None:
    """Runs ``command`` with the program's arguments."""
    _mend_streams()
    warnings.formatwarning = _in_one_line
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook's backend may not be installed
    try:
        command(standalone_mode=False)
    except UsageError as error:
        _refuse(str(error))
    except MemoryError:
        _refuse(NO_MEMORY)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        more = f"; '{context.command_path} --help' says what there is" if context else ""
        _refuse(error.format_message().rstrip(".") + more)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("interrupted", err=True)
        stopped = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        sys.exit(getattr(stopped, "code", 130))
    except Exception as error:
        loop = sys.modules.get("swg_fast.training.loop")  # importing it takes seconds
        if loop is not None and isinstance(error, loop.Interrupted):
            click.echo(str(error), err=True)
            sys.exit(error.code)
        if isinstance(error, RuntimeError) and re.search("(?:can't allocate|out of) memory", str(error)):
            _refuse(NO_MEMORY)
        if isinstance(error, OSError) and error.filename is None and _unprintable():
            _refuse(f"what it found cannot be printed ({error.strerror}); send the output elsewhere")
        raise


def _in_one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 line: str | None = None, plain: Any = warnings.formatwarning) -> str:
    """A `Note` without the place in the code that gave it; any other warning as Python has it."""
    return f"note: {message}\n" if category is Note else plain(message, category, filename, lineno, line)


def _mend_streams() -> None:
    """Gives the program the standard streams that it lacks, and an error output that may be full."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is the stream's
            os.set_inheritable(descriptor, True)
            stream = os.fdopen(descriptor, "r" if name == "stdin" else "w")
            setattr(sys, name, stream)
    if not isinstance(sys.stderr, Spare):
        sys.stderr = cast(TextIO, Spare("stderr"))


def _refuse(cause: str) -> NoReturn:
    click.echo(f"error: {' '.join(cause.split())}", err=True)
    sys.exit(2)


def _unprintable() -> bool:
    """Whether standard output cannot be written: its disk is full or its reader has gone."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the interpreter flushes it at exit
        return True
    return False
