"""Faults inserted into the compiled kernels: the emulator must find them."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ddpm

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator import MachineError
from emulator.emulation import Emulation
from emulator.problems import same_bits
from one_step import row, step_problem, with_gradient

from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.shared.packing import pack

pytestmark = pytest.mark.usefixtures("emulated")


def faults(ptx, pattern):
    """The kernel without one of the matching instructions, for each of them."""
    lines = ptx.split("\n")
    for i, line in enumerate(lines):
        if re.search(pattern, line) and not line.strip().startswith("//"):
            yield "\n".join([*lines[:i], re.sub(pattern + r"[^;]*;", "", line), *lines[i + 1 :]])


def swaps(ptx):
    """The kernel with two accumulators of one wgmma exchanged, for each product."""
    for registers in dict.fromkeys(re.findall(r"wgmma\.mma_async\S+ \{([^}]*)\}", ptx)):
        names = [name.strip() for name in registers.split(",")]
        names[0], names[2] = names[2], names[0]
        yield ptx.replace("{" + registers + "}", "{" + ", ".join(names) + "}")


class Mutants:
    """A guided step at hidden 64 on sm_90, to run with faults in it."""

    def __init__(self, monkeypatch, head="joint"):
        schedule, network, start = step_problem(64, head, 64)
        fused = launch.KernelNetwork.lay_out(pack(network, 15, torch.bfloat16, "cpu"), "bf16")
        table = row(ddpm(schedule, 5.0, 0.7), start.t, start)
        self.launch = lambda: (with_gradient(fused, table, start, Config(64, 32, 4, 2)),)
        self.emulation = Emulation(90).install(monkeypatch)
        self.expected = self.emulation.run(self.launch, 0, "issue")
        self.ptx = self.emulation.compiled["sample_kernel"].ptx
        assert not self.seen(self.ptx)

    def seen(self, ptx):
        """Whether a run differs from the unchanged kernel's: a race, an error, or other bits."""
        self.emulation.edit = lambda _: ptx
        for schedule in ((0, "late"), (1, "random"), (2, "random")):
            self.emulation.results.clear()
            try:
                out = self.emulation.run(self.launch, *schedule)
            except MachineError:
                return True
            if self.emulation.races or not same_bits([self.expected, out]):
                return True
        return False


FAULTS = {
    "barrier": r"bar\.sync",
    "product's wait": r"wgmma\.wait_group",
    "copy's wait": r"cp\.async\.wait_group",
    "fence": r"fence\.proxy\.async",
}


@pytest.mark.slow
def test_faults_are_seen(monkeypatch):
    """Removes all instructions of a kind, or exchanges two accumulators."""
    mutants = Mutants(monkeypatch)
    for kind, pattern in FAULTS.items():
        assert mutants.seen(re.sub(pattern + r"[^;]*;", "", mutants.ptx)), kind
    assert mutants.seen(next(swaps(mutants.ptx)))


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["early", "joint"])
def test_single_faults_are_seen(monkeypatch, head):
    """Removes one instruction at a time. The emulator misses those whose order something else ensures too:
    Triton puts barriers beside each other, and one fence covers several products."""
    mutants = Mutants(monkeypatch, head)
    for kind, least in (("product's wait", 0.8), ("copy's wait", 0.8), ("barrier", 0.6), ("fence", 0.4)):
        seen = [mutants.seen(ptx) for ptx in faults(mutants.ptx, FAULTS[kind])]
        assert seen and sum(seen) >= least * len(seen), (kind, sum(seen), len(seen))
        print(f"{head}: {kind}: {sum(seen)} of {len(seen)} seen")
    assert all(mutants.seen(ptx) for ptx in swaps(mutants.ptx))
