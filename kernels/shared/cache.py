"""Where this package keeps what it finds out about a machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where this package keeps what it finds out about a machine: $SWG_FAST_CACHE, else swg-fast/
    in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SWG_FAST_CACHE") or Path(home) / "swg-fast")
