"""What the project asks of its source and a machine can check: short functions, files and parameter lists,
imports that run downward, and a table that names every room."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("swg_fast", "kernels", "reference", "benchmarks", "examples", "tests")
# The plain reference takes the paper's parameters by their names.
NAMES_OF_THE_PAPER = {"reference/sampler.py"}

# swg_fast/ has links to kernels/ and reference/, whose files are not counted twice.
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))
           if path.resolve() == path.absolute()]


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with the file it is in, GPU kernels aside: they take pointers and sizes one by one."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
                    "jit" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield str(path.relative_to(ROOT)), node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many there are beside self."""
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return len([each for each in every if each.arg not in ("self", "cls")])


def assert_at_most(limit: int, counts: dict[str, int]) -> None:
    over = [f"{name}: {count}" for name, count in counts.items() if count > limit]
    assert not over, "\n".join(over)


def test_no_function_is_over_60_lines():
    lengths = {f"{file}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
               for file, node in functions()}
    assert_at_most(60, lengths)


def test_no_file_is_over_350_lines():
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in SOURCES}
    assert_at_most(350, lengths)


def test_no_parameter_list_is_over_ten():
    counts = {f"{file}:{node.lineno} {node.name}": parameters(node) for file, node in functions()
              if file not in NAMES_OF_THE_PAPER}
    assert_at_most(10, counts)


def test_imports_run_downward():
    """pyproject.toml has the contract, CONTRIBUTING.md its table."""
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed")
    out = subprocess.run([command, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


def test_the_table_names_every_room_once():
    table = re.findall(r"^\| `(.*?)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    rooms = [folder.parent.relative_to(ROOT) for top in ("swg_fast", "kernels") for folder in
             (ROOT / top).glob("*/__init__.py")]
    there = [str(room) for room in rooms if not (ROOT / room).is_symlink()] + ["reference"]
    assert sorted(table) == sorted(there)
