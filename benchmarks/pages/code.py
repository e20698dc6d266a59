"""The code blocks of the pages: `benchmarks/tutorial.py` and the tests run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block: its language ("" for a block of shell commands), text, and first line in the page."""

    language: str
    text: str
    line: int


def code_blocks(page: Path) -> list[CodeBlock]:
    """The page's fenced blocks in order."""
    text = page.read_text()
    return [CodeBlock(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)
            for found in FENCE.finditer(text)]


def commands(block: CodeBlock) -> list[str]:
    """The shell commands of a block, without comments; a line that ends in a backslash goes on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in lines)
            if line and not line.startswith("#")]
