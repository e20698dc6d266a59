"""On CUDA, a sequence of launches as one captured graph: no Python and no launch gaps."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARMUP = 3  # eager runs before capture, as CUDA graphs need


def capture(once: Callable[[], None]) -> Callable[[], None]:
    """``once``, after a warm-up, as a CUDA graph's replay: the same kernels on the same memory. It is
    captured on a stream of the current device; left to choose, torch takes one of the first device that it
    ever captured on. Other threads may work meanwhile."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        once()
    return graph.replay
