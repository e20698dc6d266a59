"""Runs compiled PTX on a CPU, one block of threads at a time, and looks for races.

Shows errors that Triton's interpreter cannot: in layouts, tensor-core fragments, swizzles, asynchronous
copies, barriers. README.md lists what is modelled.
"""

from emulator.kernel import Kernel
from emulator.program import Unsupported
from emulator.results import MachineError, Race, Result, TensorMap

__all__ = ["Kernel", "MachineError", "Race", "Result", "TensorMap", "Unsupported"]
