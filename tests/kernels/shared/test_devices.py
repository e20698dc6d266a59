"""Devices, streams and captures, with stand-ins for GPUs."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from conftest import ddpm, make_network

from swg_fast import NoiseSchedule, UsageError
from swg_fast.common.hardware import resolve_device
from swg_fast.kernels.fused import launch
from swg_fast.kernels.shared import devices, packing, sampler_table
from swg_fast.kernels.shared.cuda_graph import WARMUP, capture
from swg_fast.policy import torch_operator


class Stream:
    """A stand-in for a stream, which notes what it waits for."""

    def __init__(self, name="side"):
        self.name, self.waited = name, []

    def wait_stream(self, other):
        self.waited.append(other.name)

    def synchronize(self):
        self.waited.append("all")


def test_a_capture_names_its_stream(monkeypatch):
    """The side stream of the device that is current, in the mode that lets other threads work."""
    side, mine, calls, captures = Stream(), Stream("current"), [], []

    @contextmanager
    def graph(of, **keywords):
        captures.append((of, keywords, len(calls)))
        yield

    made = SimpleNamespace(replay=lambda: calls.append("replay"))
    for name, value in {"Stream": lambda: side, "current_stream": lambda: mine, "CUDAGraph": lambda: made,
                        "stream": contextmanager(lambda of: iter([of])), "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    replay = capture(lambda: calls.append("run"))
    assert captures == [(made, {"stream": side, "capture_error_mode": "thread_local"}, WARMUP)]
    assert side.waited == ["current"] and mine.waited == ["side"] and calls == ["run"] * (WARMUP + 1)
    replay()
    assert calls[-1] == "replay"


def test_a_callers_capture_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(UsageError, match="sample outside the capture"):
        devices.refuse_capture(torch.device("cuda:0"))
    devices.refuse_capture(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    devices.refuse_capture(torch.device("cuda:0"))


def test_cuda_is_the_gpu_that_is_current_now(monkeypatch):
    """Two GPUs, of which the second is current."""
    for name, value in {"is_available": True, "device_count": 2, "current_device": 1}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda:1")
    assert resolve_device("cuda:0") == torch.device("cuda:0")


def test_what_all_streams_read_is_waited_for(monkeypatch):
    """Weights and tables are made on one stream and read on any: once made they are there."""
    waited, cpu = [], torch.device("cpu")
    table = ddpm(NoiseSchedule.vp(3), 1.0, 1.0)

    def settle(device):  # whether another thread could find the table, and the numbers
        waited.append((bool(table._placed), (device, 3001) in devices._counts))

    for module in (packing, sampler_table, devices, launch):
        monkeypatch.setattr(module, "settle", settle)
    packed = packing.pack(make_network(2, 2, 64, 2), 3)
    table.on(cpu)
    assert table.on(cpu) is table.on(cpu) and waited == [(False, False)] * 2
    assert devices.counted(cpu, 3001) is devices.counted(cpu, 3001) and waited[2:] == [(True, False)]
    assert devices.counted(cpu, devices.MOST_KEPT + 1) is not devices.counted(cpu, devices.MOST_KEPT + 1)
    fused = launch.KernelNetwork.lay_out(packed, "fp32")
    assert fused.state_rows is fused.state_rows and waited[3:] == [(True, True)] * 2
    monkeypatch.undo()
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    devices.settle(torch.device("cuda:0"))
    devices.settle(torch.device("cpu"))
    assert stream.waited == ["all"]


def test_torch_compile_captures_no_graph_around_the_operator():
    assert torch.Tag.cudagraph_unsafe in torch_operator.sample._opoverload.tags
