"""A hook of mkdocs.yml: formulas become MathML, which a browser draws without a script and without a network.

GitHub draws the same Markdown: a fenced block ```math, and $`...`$ within a line.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

BLOCK = re.compile(r"^```math\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"\$`(.+?)`\$")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's Markdown with its LaTeX formulas as MathML."""
    text = BLOCK.sub(lambda found: f"<div>{convert(found[1].strip(), display='block')}</div>", markdown)
    # At the start of a line <math> alone would begin a paragraph of its own.
    return INLINE.sub(lambda found: f"<span>{convert(found[1])}</span>", text)
