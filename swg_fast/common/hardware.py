"""What this machine has: memory, threads, devices. Checked before work begins."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swg_fast.common.checks import whole
from swg_fast.common.errors import UsageError

if TYPE_CHECKING:
    import torch

GROUP = Path("/sys/fs/cgroup")  # this process's control group, in a container
PROCESSORS = Path("/proc/cpuinfo")
LITTLE = 2**28  # bytes, less than importing torch takes


def resolve_device(name: Any = "auto") -> torch.device:
    """The torch device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for.

    ``auto`` is CUDA where there is one. ``cuda`` is the GPU that is current now, by its number: it stays the
    same when another becomes current. Raises `UsageError` for other names and for a device that this machine
    does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not isinstance(name, str | torch.device):
            raise TypeError
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {str(name)!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"device {str(name)!r}: torch sees no CUDA device here; use cpu or auto")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise UsageError(f"device {str(name)!r}: this machine has {count} CUDA device(s), counted from 0")
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def core_numbers() -> list[int]:
    """The numbers of the cores that this process may use: those of its affinity, or all of the machine where
    the system keeps no affinity, as macOS."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def keep_to_cores(numbers: Collection[int]) -> None:
    """Keeps this process to the cores of these ``numbers``. Raises `UsageError` where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("this system keeps no process to chosen cores; measure on Linux")
    os.sched_setaffinity(0, numbers)


def cores() -> int:
    """How many cores this process may use, by its affinity and its control group's quota."""
    found = len(core_numbers())
    try:
        quota, period = map(int, (GROUP / "cpu.max").read_text().split())
    except (OSError, ValueError):
        return found  # no group, or one without a quota
    return max(1, min(found, -(-quota // period)))


def load() -> float | None:
    """Processes that want a core of this machine, for each core, over the last minute; None if unknown."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None


def max_threads() -> int:
    """The most threads to accept: more slow a machine down, and far more crash its processes."""
    return max(64, 4 * cores())


def set_threads(count: Any) -> None:
    """Sets torch's threads on the CPU; `UsageError` for less than 1 or more than `max_threads`."""
    import torch

    torch.set_num_threads(whole("threads", count, 1, max_threads()))


def available_memory() -> int | None:
    """Bytes that the machine and this process's control group have left; None if unknown."""
    found = []
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":") for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        most, now = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        found.append(max(0, most - now + int(stat["file"])))  # cached files are dropped on demand
    except (OSError, ValueError, KeyError):
        pass  # no group, or one without a limit
    return min(found, default=None)


def check_memory(needed: int, what: str, mend: str, device: torch.device | None = None) -> None:
    """`UsageError` where ``what`` needs more bytes than are free. Less than ``LITTLE`` is not checked."""
    if needed < LITTLE:
        return
    if device is not None and device.type == "cuda":
        import torch

        there: int | None = torch.cuda.mem_get_info(device)[0]
    else:
        there = available_memory()
    if there is not None and needed > there:
        raise UsageError(f"{what} would take {_gigabytes(needed)} of memory and {_gigabytes(there)} "
                         f"are free; {mend}")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count < 1e15 else f"over {10**6:,} GB"


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor with the instruction set that torch uses."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":")[1].strip() for line in processor_lines() if line.startswith("model name")]
    return f"{next(iter(models), platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"


def processor_lines() -> list[str]:
    """The lines of /proc/cpuinfo. Where the system has no such file, as macOS, one with the model's name."""
    if PROCESSORS.exists():
        return PROCESSORS.read_text().splitlines()
    return [f"model name: {platform.processor() or platform.machine()}"]
