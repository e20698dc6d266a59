"""Model files that today's MuJoCo no longer reads, read as they were meant. No file is changed."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from swg_fast.envs.opengl import mujoco

_DIRECTORIES = ("meshdir", "texturedir")


def load(path: str | Path) -> mujoco.MjModel:
    """The model of ``path``: as it is where this MuJoCo can read it, else repaired.

    Raises ValueError with MuJoCo's own words where neither works.
    """
    path = Path(path)
    with _no_deprecation_notes():
        try:
            return mujoco.MjModel.from_xml_path(str(path))
        except ValueError:
            root = ET.parse(path).getroot()
            if _global_coordinates(root):
                return mujoco.MjModel.from_xml_path(str(_local_twin(path)))
            return mujoco.MjModel.from_xml_string(repaired(path))


@contextlib.contextmanager
def _no_deprecation_notes() -> Iterator[None]:
    """Silences the notes that MuJoCo prints from C and writes to MUJOCO_LOG.TXT in the user's folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def repaired(path: Path) -> str:
    """The XML of ``path`` without what MuJoCo 3 refuses.

    Included files replace their includes, with absolute folders. ``option/apirate``, a viewer's rate, is
    removed. A second top-level default class becomes a class of the first.
    """
    root = _with_includes(path)
    for compiler in root.iter("compiler"):
        for name in _DIRECTORIES:
            if name in compiler.attrib:
                compiler.set(name, str((path.parent / compiler.get(name)).resolve()))
    for option in root.iter("option"):
        option.attrib.pop("apirate", None)
    for default in root.findall("default"):
        if default.get("class") not in (None, "main"):
            root.remove(default)
            outer = ET.Element("default")
            outer.append(default)
            root.append(outer)
    return ET.tostring(root, encoding="unicode")


def _with_includes(path: Path) -> ET.Element:
    """The tree of ``path``; MuJoCo looks for every included file beside the main one."""

    def expand(element: ET.Element) -> None:
        for place, child in reversed(list(enumerate(element))):
            if child.tag == "include":
                included = ET.parse(path.parent / child.get("file")).getroot()
                expand(included)
                element.remove(child)
                for part in reversed(included):
                    element.insert(place, part)
            else:
                expand(child)

    root = ET.parse(path).getroot()
    expand(root)
    return root


def _global_coordinates(root: ET.Element) -> bool:
    return any(compiler.get("coordinate") == "global" for compiler in root.iter("compiler"))


def _local_twin(path: Path) -> Path:
    """Gymnasium's file of the same name: the same bodies in local coordinates, which MuJoCo still reads."""
    import gymnasium

    twin = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / path.name
    if not twin.is_file():
        raise ValueError(f"{path.name} has global coordinates, which MuJoCo {mujoco.__version__} "
                         "does not read, and Gymnasium has no file of that name")
    return twin
