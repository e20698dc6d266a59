"""Runs compiled PTX on a CPU, a block of threads at a time, and looks for races.

What Triton's interpreter cannot see, compiled code shows here: layouts, tensor-core fragments, swizzles,
asynchronous copies, barriers. README.md says what is modelled and what is not.
"""

from emulator.kernel import Kernel
from emulator.program import Unsupported
from emulator.results import MachineError, Race, Result, TensorMap

__all__ = ["Kernel", "MachineError", "Race", "Result", "TensorMap", "Unsupported"]
