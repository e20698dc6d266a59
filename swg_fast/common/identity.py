"""What stands for a value, so that one can be told from another."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def key_of(value: Any) -> str:
    """16 hexadecimal digits that stand for a JSON ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
