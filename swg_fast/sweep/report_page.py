"""The report of a sweep's folder: tables, pictures, and one HTML page with all of them."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import finite, user_path, write_text
from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import need
from swg_fast.common.output_paths import check_folder
from swg_fast.common.read_files import is_file, read_json
from swg_fast.sweep import plots, tables
from swg_fast.sweep.cells import Cell
from swg_fast.sweep.files import FORMAT, FailureJson, read_results
from swg_fast.sweep.live import duration, headline
from swg_fast.sweep.paper_layout import PaperBlock, for_picture, paper_blocks
from swg_fast.sweep.store import Store
from swg_fast.sweep.views import Block, View, blocks_of, cell_of, views_of

RESULTS = "results.json"


def write_report(source: str | Path, out: str | Path | None = None) -> list[Path]:
    """Writes tables.md, .tex and .csv, a PNG for every view and metric, index.html, and results.json with all
    data of the others; returns their paths. ``source`` is a sweep's folder or a results.json.

    Raises `UsageError` where ``source`` holds no sweep, or no finished cell.
    """
    jinja2 = need("jinja2", "a report")
    source = user_path(source)
    found = collect(source)
    sweep, results = found["sweep"], found["results"]
    beside = source.parent / source.stem if is_file(source) else source / "report"
    out = user_path(beside if out is None else out)
    check_folder(out)
    budget = describe_budget(results)
    blocks = [_blocks(view, found) for view in views_of(sweep, results)]
    every = [block for part in blocks for block in part]
    paths = [out / f"tables.{suffix}" for suffix in ("md", "tex", "csv")]
    texts = tables.markdown(every, budget), tables.latex(every, budget), tables.comma_separated(every)
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    sections = []
    for number, part in enumerate(blocks):
        for name in dict.fromkeys(block.name for block in part):
            mine = [block for block in part if block.name == name]
            path = out / f"{number + 1}-{re.sub('[^A-Za-z0-9_.]', '-', name)[:100]}.png"
            drawn = [for_picture(block) for block in mine if block.values]
            if drawn:
                plots.draw(drawn, path)
                paths.append(path)
            sections.append(_section(mine, path if drawn else None))
    curves = out / "curves.png"
    if plots.draw_curves(found["histories"], curves):
        paths.append(curves)
        sections.append({"title": "Held-out losses of the trainings", "picture": _inline(curves),
                         "tables": []})
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        (resources.files("swg_fast.sweep") / "report_page.html").read_text(encoding="utf-8"))
    write_text(out / "index.html", page.render(
        title=sweep["title"], question=sweep["question"], done=len(results), total=found["cells"],
        budget=budget, hours=duration(sum(result["seconds"] for result in results)), sections=sections,
        failures=found["failures"], shared=json.dumps(_shared(results), indent=1),
        cells=[{"label": cell_of(result).label, "text": headline(result), "key": result["key"],
                "seconds": f"{result['seconds']:.0f}"} for result in results]))
    text = json.dumps(finite(found), allow_nan=False, separators=(",", ":"))
    write_text(out / RESULTS, text.replace('{"kind":', '\n{"kind":') + "\n")
    return [*paths, out / "index.html", out / RESULTS]


def paper_tables(source: str | Path) -> list[PaperBlock]:
    """The tables of a sweep's folder, or of a results.json, that its file asks for in the layout of papers.
    Raises as `write_report` does."""
    found = collect(user_path(source))
    blocks = [_blocks(view, found) for view in views_of(found["sweep"], found["results"]) if view.paper]
    return [block for part in blocks for block in part if isinstance(block, PaperBlock)]


def _blocks(view: View, found: dict[str, Any]) -> Sequence[Block]:
    if view.paper:
        return paper_blocks(view, found["results"], found.get("missing", []))
    return blocks_of(view, found["results"])


def collect(source: Path) -> dict[str, Any]:
    """The data of a report, from a sweep's folder or from an earlier report's results.json: ``sweep`` (title,
    question, report), the finished ``results``, the number of ``cells``, those that are ``missing``,
    ``failures``, and the trainings' ``histories``.

    Raises `UsageError` where ``source`` is neither, or no cell is done.
    """
    if is_file(source):
        return read_results(source)
    store = Store(source)
    sweep = store.read()
    cells = [Cell.from_json(value) for value in sweep["cells"]]
    # An older sweep of this folder may have named the same result by other axes.
    found = [(store.finished(cell), cell.axes) for cell in cells]
    results = [result | {"axes": axes} for result, axes in found if result is not None]
    before = itertools.accumulate((result is not None for result, _ in found), initial=0)
    missing = [cell.to_json() | {"at": at} for cell, (done, _), at in zip(cells, found, before, strict=False)
               if done is None]
    if not results:
        raise UsageError(f"{store.folder}: no cell is done yet; run 'swg-fast sweep' first")
    for result in (*results, *missing):
        if result["training"]:  # the data's folder is not part of a result
            result["training"] |= {"source": Path(result["training"]["source"]).name}
    return {"results_format": FORMAT, "cells": len(cells), "failures": _failures(store, cells),
            "sweep": {name: sweep[name] for name in ("title", "question", "report")}, "missing": missing,
            "histories": _histories(store, cells),
            **{name: sweep[name] for name in ("provenance",) if name in sweep}, "results": results}


def describe_budget(results: list[dict[str, Any]]) -> str:
    """One line on the trainings (steps, batches, width, seeds) and on how candidates were sampled."""
    trainings = {r["training"]["key"]: r["training"]["settings"] for r in results if r["training"]}
    toys = [r["settings"] for r in results if r["kind"] == "toy"]
    parts = []
    if trainings:
        each = list(trainings.values())
        parts += [f"{_values(each, 'critic_steps')} critic steps at batch {_values(each, 'critic_batch')}",
                  f"{_values(each, 'actor_steps')} actor steps at batch {_values(each, 'actor_batch')}",
                  f"hidden {_values(each, 'hidden_dim')}, {_values(each, 'precision')}",
                  f"training seeds {_values(each, 'seed')}"]
    students = [r["training"]["distill"] for r in results if r["training"] and r["training"].get("distill")]
    if students:
        parts.append(f"students of {_values(students, 'steps')} steps at batch {_values(students, 'batch')}")
    if finished := [r["policy"] for r in results if r["policy"]]:
        parts.append(f"finished policies {', '.join(dict.fromkeys(finished))}")
    sampled = [r["settings"] for r in results if r["kind"] == "evaluate"]
    for name, title in (("n_candidates", "N"), ("sampler", "sampler"), ("sampler_steps", "steps")):
        if all(name in settings for settings in sampled) and sampled:
            parts.append(f"{title} {_values(sampled, name)}")
    if toys:
        parts.append(f"toy: {_values(toys, 'steps')} steps at batch {_values(toys, 'batch')}, "
                     f"{_values(toys, 'samples')} samples, seeds {_values(toys, 'seed')}")
    return f"Budget: {'; '.join(parts)}." if parts else ""


def _values(settings: list[dict[str, Any]], name: str) -> str:
    found = [f"{s[name]:,}" if isinstance(s[name], int) else str(s[name]) for s in settings if name in s]
    return ", ".join(dict.fromkeys(found)) or "unknown"


def _section(blocks: list[Block], picture: Path | None) -> dict[str, Any]:
    return {"title": f"{blocks[0].view.title}: {blocks[0].metric.title}",
            "picture": None if picture is None else _inline(picture),
            "tables": [{"panel": block.panel, "rows": tables.rows(block), "caption": tables.caption(block)}
                       for block in blocks]}


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _histories(store: Store, cells: list[Cell]) -> dict[str, Any]:
    """Every training's log lines, by a label of its axes."""
    found: dict[str, Any] = {}
    for cell in cells:
        if cell.training:
            axes = {k: v for k, v in cell.axes.items() if not k.startswith(("evaluate.", "rank."))}
            label = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in axes.items()) or cell.training.task
            history = store.history(cell.training)
            if history:
                found.setdefault(cell.training.key, (label, history))
    apart = len({label for label, _ in found.values()}) == len(found)
    return {label if apart else f"{label} ({key[:4]})": history for key, (label, history) in found.items()}


def _failures(store: Store, cells: list[Cell]) -> list[tuple[str, str]]:
    names = {cell.key: cell.label for cell in cells} | {
        cell.training.key: f"training {cell.training.key} on {cell.task}" for cell in cells if cell.training}
    damaged = [(cell.label, f"{store.cell(cell.key)} is damaged; 'swg-fast sweep' finds it again")
               for cell in cells if store.cell(cell.key).exists() and not store.done(cell)]
    return damaged + [(names[path.stem], read_json(path, FailureJson)["error"])
                      for path in sorted((store.folder / "failed").glob("*.json")) if path.stem in names]


def _shared(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings, data and versions that all finished cells share."""
    flats = []
    for result in results:
        made = dict(result.get("provenance") or {"versions": result.get("versions", {})})
        own = {"data_hash": (result["training"] or {}).get("data_hash")}
        flats.append(cell_of(result).flat() | own
                     | {f"version.{k}": v for k, v in made.pop("versions").items()} | made)
    first = flats[0]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in flats)}
