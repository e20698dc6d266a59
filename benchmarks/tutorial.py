"""Runs the code blocks of docs/start.md in order and records what they print.

    python -m benchmarks.tutorial --json benchmarks/results/tutorial.json && python -m benchmarks.pages

Each block stands before a place `<!-- made: output NUMBER -->`, which shows what it printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.measuring import ROOT, save
from benchmarks.pages.code import CodeBlock, code_blocks, commands
from swg_fast.cli.ending import run
from swg_fast.common.output_paths import check_output

PAGE = ROOT / "docs" / "start.md"
RECORD = ROOT / "benchmarks" / "results" / "tutorial.json"
RUN = ("python", "")  # the languages of blocks that are run


def runnable() -> list[CodeBlock]:
    """The page's blocks of Python and of commands, without those of output and of the installation."""
    return [block for block in code_blocks(PAGE)
            if block.language in RUN and not block.text.startswith(("git clone", "pip install", "docker"))]


def printed(block: CodeBlock, names: dict[str, Any], folder: Path) -> str:
    """What the block prints, run in ``folder``; ``names`` are the Python blocks' own. An error in a block
    is raised."""
    if block.language == "python":
        out = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out):
            exec(compile(block.text, f"{PAGE.name}:{block.line}", "exec"), names)
        return out.getvalue()
    text = ""
    for command in commands(block):
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True,
                              env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                                                "COLUMNS": "100"})
        text += done.stdout
    return text


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), required=True)
def main(path: Path) -> None:
    """Records what the tutorial prints."""
    check_output(path)
    names: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for block in runnable():
            begun = time.perf_counter()
            rows.append({"code": block.text, "output": printed(block, names, Path(folder))})
            rows[-1]["seconds"] = round(time.perf_counter() - begun, 1)
            click.echo(f"line {block.line}: {rows[-1]['seconds']} s")
    save(path, {"blocks": rows})


if __name__ == "__main__":
    run(main)
