"""Options made from settings' fields: names, help, choices and ranges are written once, in the records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

import click

from swg_fast.common.atomic_files import user_path
from swg_fast.common.checks import whole
from swg_fast.common.errors import UsageError
from swg_fast.common.settings_fields import checked, kind_of, range_text, takes_whole_numbers


class PathName(click.ParamType):
    """A file or a folder as it is written; pathlib would take no name for the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return user_path(value)


PATH = PathName()
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of everything random.")


class SettingsCommand(click.Command):
    """A command with an option for every field that ``entries`` gives; each is None where it is not given.

    They are made when they are first needed: some records import torch, and another command's --help should
    not wait for that.
    """

    entries: Callable[[], Iterable[tuple[Field, str]]]
    sections: Callable[[], Mapping[str, Collection[str]]] | None = None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help of the options, below the titles of ``sections``; what none has stands last, under Run."""
        if self.sections is None:
            super().format_options(ctx, formatter)
            return
        titles = {name: title for title, names in self.sections().items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in (*self.sections(), "Run")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows[titles.get(str(parameter.name), "Run")].append(record)
        for title, records in rows.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        known = {parameter.name for parameter in self.params}
        self.params += [option(entry, default) for entry, default in self.entries()
                        if entry.name not in known]
        return super().get_params(ctx)


def with_options(entries: Callable[[], Iterable[tuple[Field, str]]],
                 sections: Callable[[], Mapping[str, Collection[str]]] | None = None
                 ) -> type[SettingsCommand]:
    """The class of a command with the options of ``entries``: fields, each with what its help calls the
    default. ``sections`` are titles in the help, each with the names of its options."""
    own: dict[str, Any] = {"entries": staticmethod(entries)}
    if sections is not None:
        own["sections"] = staticmethod(sections)
    return type("Command", (SettingsCommand,), own)


def own_default(entry: Field) -> str:
    """The field's default in words; empty where it is None."""
    default = entry.default
    if default is None or default is MISSING or default == ():
        return ""
    return "on" if default is True else "off" if default is False else str(default)


def option(entry: Field, default: str) -> click.Option:
    """The option of a field. ``default`` is what its help says of it; nothing where that is empty."""
    says, kind = entry.metadata, kind_of(entry)
    name = "--" + entry.name.replace("_", "-")
    names = [entry.name, *(says["flags"] or [f"{name}/--no-{name[2:]}" if kind is bool else name])]
    notes = [f"default: {default}"] * bool(default) + [text for text in (range_text(entry),) if text]
    several: dict[str, Any] = {"multiple": True, "metavar": "NAME", "callback": _given}
    return click.Option(
        names, default=None, show_default=False, nargs=2 if kind is tuple else 1, type=_type(entry),
        help=says["help"] + (f"  [{'; '.join(notes)}]" if notes else ""), **(several if kind is list else {}))


def _given(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of an option that takes several; None where it is not given."""
    return value or None


def _type(entry: Field) -> Any:
    says, kind = entry.metadata, kind_of(entry)
    if says["choices"]:
        return click.Choice(list(says["choices"]))
    if says["words"] or says["check"] is not None:
        return _Own(entry)
    if kind is tuple:
        return int if takes_whole_numbers(entry) else float
    return str if kind is list else kind


class _Own(click.ParamType):
    """A value that the field itself checks, such as a number or the word ``auto``."""

    def __init__(self, entry: Field) -> None:
        self.entry = entry
        kind = kind_of(entry)
        self.name = "|".join(("numbers" if kind is object else kind.__name__, *entry.metadata["words"]))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind = kind_of(self.entry)
        with suppress(TypeError, ValueError):
            value = kind(value) if kind in (int, float) else value
        try:
            return checked(self.entry, value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def whole_numbers(text: str, name: str, high: int = 2**32) -> list[int]:
    """"64,1024" as [64, 1024], each in 1..high."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{name} takes whole numbers such as 64,1024") from error
    return [whole(name, number, 1, high) for number in found]
