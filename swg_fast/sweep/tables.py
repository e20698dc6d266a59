"""A report's tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import html
import io
from typing import Any

from swg_fast.sweep.metrics import Estimate
from swg_fast.sweep.paper_layout import Entry, PaperBlock, paper_caption, paper_rows
from swg_fast.sweep.views import Block, short, shown


def text(found: Estimate | None, digits: int) -> str:
    """``85.0 [79.1, 89.4]``; the number of runs in place of a missing interval."""
    if found is None:
        return "-"
    value = f"{found.value:.{digits}f}"
    if found.low is None:
        return f"{value} ({found.runs} run{'s' if found.runs > 1 else ''})"
    return f"{value} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def heading(block: Block) -> str:
    """The block's title in one line."""
    return f"{block.view.title}: {block.metric.title}" + (f" ({block.panel})" if block.panel else "")


def caption(block: Block) -> str:
    """The kind of the intervals, and the runs and episodes of each value."""
    if isinstance(block, PaperBlock):
        return paper_caption(block)
    runs = sorted({found.runs for found in block.values.values()})
    episodes = sorted({found.episodes for found in block.values.values()} - {0})
    each = f"{_span(runs)} run{'s' if runs[-1] > 1 else ''}"
    if episodes:
        each += f" and {_span(episodes)} episode{'s' if episodes[-1] > 1 else ''}"
    better = " Lower is better." if block.metric.lower_is_better else ""
    if all(found.low is None for found in block.values.values()):
        return f"Each value: {each}, too few for an interval.{better}"
    return f"95 % intervals: {block.metric.interval}. Each value: {each}.{better}"


def _span(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def rows(block: Block) -> list[list[Entry]]:
    """The table's cells, its heading line first."""
    if isinstance(block, PaperBlock):
        return paper_rows(block)
    columns = [f"{short(block.view.columns)} {shown(c)}".strip() if block.view.columns else block.name
               for c in block.columns]
    found = [[short(block.view.rows), *columns]] + [
        [shown(r), *(text(block.values.get((r, c)), block.metric.digits) for c in block.columns)]
        for r in block.rows]
    return [[Entry(cell) for cell in line] for line in found]


def markdown(blocks: list[Block], budget: str) -> str:
    """Every block as a Markdown table with its caption."""
    parts = []
    for block in blocks:
        head, *body = rows(block)
        lines = [f"### {_plain(heading(block))}", _plain(f"{caption(block)} {budget}"), "", _line(head),
                 "|" + "---|" * len(head), *map(_line, body)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_rich(block: Block) -> Any:
    """The block as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    head, *body = rows(block)
    table = Table(*(cell.text for cell in head), title=heading(block), title_justify="left")
    for line in body:
        table.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in line))
    return table


def _line(cells: list[Entry]) -> str:
    texts = (_plain(cell.text).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(f"**{text}**" if cell.bold else text
                             for cell, text in zip(cells, texts, strict=True)) + " |"


def _plain(text: str) -> str:
    """``text`` in one line, shown by Markdown as it is and not taken for HTML."""
    return html.escape(" ".join(text.split()), quote=False)


def latex(blocks: list[Block], budget: str) -> str:
    """Every block as a LaTeX table; needs the package booktabs."""
    parts = []
    for block in blocks:
        head, *body = ([rf"\textbf{{{_escape(cell.text)}}}" if cell.bold else _escape(cell.text)
                        for cell in row] for row in rows(block))
        parts.append("\n".join([
            r"\begin{table}\centering",
            rf"\caption{{{_escape(f'{heading(block)}. {caption(block)} {budget}'.strip())}}}",
            rf"\begin{{tabular}}{{l{'c' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\",
            r"\midrule", *(" & ".join(row) + r" \\" for row in body), r"\bottomrule",
            r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _escape(value: str) -> str:
    for mark in "\\&%$#_{}":
        value = value.replace(mark, r"\textbackslash " if mark == "\\" else f"\\{mark}")
    return value.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")


def comma_separated(blocks: list[Block]) -> str:
    """Every estimate, one a line, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["view", "panel", "metric", "row", "row value", "column", "column value", "value", "low",
                     "high", "runs", "episodes"])
    for block in blocks:
        for (row, column), found in block.values.items():
            writer.writerow([block.view.title, block.panel, block.name, block.view.rows, row,
                             block.view.columns or "", "" if column is None else column, found.value,
                             "" if found.low is None else found.low,
                             "" if found.high is None else found.high, found.runs, found.episodes])
    return file.getvalue()
