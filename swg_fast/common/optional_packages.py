"""Packages that an extra installs, and the error where one is missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from swg_fast.common.errors import UsageError

# Module -> the extra of pyproject.toml that brings it.
EXTRAS = {
    "tensorboard": "train",
    "wandb": "wandb",
    "imageio": "video",
    "imageio_ffmpeg": "video",
    "msgpack": "jax-import",
    "minari": "minari",
    "gymnasium_robotics": "envs",
    "ogbench": "envs",
    "jax": "bench",
    "flax": "bench",
    "ray": "cluster",
    "jinja2": "cluster",
    "huggingface_hub": "hub",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
}


def installed(module: str) -> bool:
    """Whether ``module``, of one name, is installed. Imports nothing."""
    return importlib.util.find_spec(module) is not None


def check(module: str, what: str) -> None:
    """Raises `UsageError` where ``module``, which ``what`` needs, is not installed. Imports nothing.

    Call it before long work.
    """
    root = module.partition(".")[0]
    if not installed(root):
        how = f"'swg-fast[{EXTRAS[root]}]'" if root in EXTRAS else root
        raise UsageError(f"{what} needs {root}, which is not installed; pip install {how}")


def need(module: str, what: str) -> ModuleType:
    """Imports ``module``. Raises `UsageError` where it is not installed or cannot be imported here."""
    check(module, what)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{what} needs {module}, which is installed but cannot be imported ({error})"
                         ) from error
