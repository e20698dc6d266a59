"""A decision by the layered kernels (`kernels`): its memory and the order of its launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from swg_fast.kernels.fused.layered.kernels import head_kernel, narrow_kernel, up_back_kernel, up_kernel
from swg_fast.kernels.fused.layered.step import hoist_kernel, keep_kernel, step_kernel
from swg_fast.kernels.fused.layout import plain_layout
from swg_fast.kernels.fused.portable.selection import keep_best_kernel
from swg_fast.kernels.fused.records import Asked
from swg_fast.kernels.shared.devices import host_memory
from swg_fast.kernels.shared.sampler_table import SamplerTable

ROWS_LIMIT = 2**19  # offsets are 32-bit
NARROW_WARPS = 4
STEP_ROWS = 16  # rows of a program of `step_kernel`: the fewest that tensor cores take
HEAD_COLUMNS = 32  # columns of a program of `head_kernel`
KEEP_ROWS = 64  # candidates that a program of `keep_kernel` compares
REDUCE = 128  # bests of tiles that `keep_best_kernel` reads at a time


def narrow(chunk: int) -> int:
    """Columns a program of a layer with H columns: a quarter of ``chunk``, for as many programs as with
    4H."""
    return max(16, chunk // 4)


def depth(kind: int, size: int) -> int:
    """How many of a narrow product's ``size`` terms to fetch at a time: 256 bytes, of ``kind`` bytes each."""
    most = 256 // kind
    return most if size % most == 0 else 64


class Place(NamedTuple):
    """Where a result lies: from entry ``first`` of the memory on, in entries of its own type."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    first: int


class Results:
    """A decision's results in one piece of ``memory``, which one copy takes: tensors of these shapes, int64
    or float32. Each begins at 16 bytes, as kernels like best."""

    def __init__(self, shapes: Sequence[tuple[torch.dtype, tuple[int, ...]]],
                 new: Callable[..., torch.Tensor]) -> None:
        words, self.places = 0, []  # words of 8 bytes
        for dtype, shape in shapes:
            self.places.append(Place(dtype, shape, words * 8 // dtype.itemsize))
            words += -(-math.prod(shape) * dtype.itemsize // 16) * 2
        self.memory = new(words, dtype=torch.int64)

    def of(self, memory: torch.Tensor) -> list[torch.Tensor]:
        """The results in a copy of the memory."""
        kinds = {torch.int64: memory, torch.float32: memory.view(torch.float32)}
        return [kinds[place.dtype][place.first: place.first + math.prod(place.shape)].view(place.shape)
                for place in self.places]


class Plan:
    """Memory and launches of decisions of one shape. ``new(*shape, dtype=float32)`` allocates memory for
    kernels to write.

    A decision's inputs are ``states`` [B, S], ``state_words`` [B] and, on the host, ``numbers``: the seed and
    the first candidate. Its ``results`` are the kept actions [B, A], weights [B], indices [B]; and, on
    request, z [B, N, D] and weights [B, N] of all. ``sound``, on the host, tells whether kept actions and
    weights and all actions are finite.
    """

    def __init__(self, network: Any, table: SamplerTable, count: int, asked: Asked,
                 new: Callable[..., torch.Tensor]) -> None:
        self.network, self.table, self.count, self.asked = network, table, count, asked
        shape, device = network.shape, network.packed.device
        B, N, H, D, DP = count, asked.n_candidates, shape.H, shape.D, shape.DP
        if B * N > ROWS_LIMIT:
            raise ValueError(f"{B * N} candidates in all; the layered kernels take up to {ROWS_LIMIT}")
        low = network.weights.up.dtype
        R = self.rows = -(-B * N // asked.config.tile) * asked.config.tile
        self.depth = 2 if shape.EARLY else shape.L  # blocks that the gradient passes
        kept = self.depth if table.guided else 0
        self.given, self.sound = host_memory(device, 2, torch.int64), host_memory(device, 1, torch.bool)
        self.numbers = self.given.numpy()
        self.words = torch.zeros(2, dtype=torch.int64, device=device)
        self.states, self.vectors = new(B, network.packed.state_dim), new(B, H)
        self.state_words = new(B, dtype=torch.int64)
        self.owners = (torch.arange(R, device=device) // N).clamp(max=B - 1)
        self.z, self.weight = new(R + KEEP_ROWS, DP), new(R + KEEP_ROWS)
        self.clean = new(R if table.multistep else 1, DP)
        self.h, self.wide = new(R, H), new(R * max(4 * H, shape.E), dtype=low)
        self.slope, self.x = new(kept, R, 4 * H, dtype=low), new(kept, R, H, dtype=low)
        self.rstd, self.inner = new(kept, R), new(R, H, dtype=low)
        self.g = (new(R, H, dtype=low), new(R, H, dtype=low))  # used alternately
        self.read = new(R, H, dtype=low)
        self.parts = new(shape.E // HEAD_COLUMNS, R)
        self.layout = plain_layout(B * N, KEEP_ROWS)
        slots = self.slots = self.layout.slots(N)
        self.best = (new(B, slots), new(B, slots, dtype=torch.int32), new(B, slots), new(B, slots, DP))
        every = [(torch.float32, (B, N, D)), (torch.float32, (B, N))] if asked.return_candidates else []
        self.results = Results([(torch.float32, (B, D - 1)), (torch.float32, (B,)), (torch.int64, (B,)),
                                *every], new)
        placed = self.results.of(self.results.memory)
        self.kept, self.score = placed[:3], new(B)
        self.every = placed[3:] or (new(1), new(1))

    def launches(self) -> None:
        """The whole decision."""
        self.bring()
        hoist_kernel[(self.count,)](self.states, self.network.state_rows, self.vectors,
                                    self.states.shape[1], H=self.network.shape.H, num_warps=NARROW_WARPS,
                                    num_stages=1)
        n = self.table.num_steps
        for j in range(n, 0, -1):
            self._step(j, begin=j == n)
            self._network(self.table.guides(j - 1))
        self._step(0)
        self._select()
        self.judge()

    def bring(self) -> None:
        """Copies the decision's numbers to the device."""
        self.words.copy_(self.given, non_blocking=True)

    def judge(self) -> None:
        """Tells the host whether the results are finite."""
        parts = (*self.kept[:2], *(self.every[0][..., :-1],) * self.asked.return_candidates)
        finite = torch.stack([part.isfinite().all() for part in parts]).all(0, keepdim=True)
        self.sound.copy_(finite, non_blocking=True)

    def _network(self, guided: bool) -> None:
        blocks = range(self.network.shape.L)
        for i in blocks[: self.depth]:
            self._forward(i, keep=guided)
        if self.network.shape.EARLY:
            self._head(guided)
        if guided:
            for i in reversed(blocks[: self.depth]):
                self._backward(i)
        for i in blocks[self.depth:]:
            self._forward(i, keep=False)

    def _wide(self, kernel: Any, columns: int, chunk: int, *arguments: Any, **options: Any) -> None:
        """Launches over all rows, ``chunk`` of ``columns`` a program; each program sums over H in one step.
        """
        config, shape = self.asked.config, self.network.shape
        kernel[self.rows // config.tile, columns // chunk](
            *arguments, BM=config.tile, H=shape.H, BC=chunk, PRECISION=shape.PRECISION,
            num_warps=config.warps, num_stages=1, **options)

    def _narrow(self, weights: torch.Tensor, out: torch.Tensor, bias: torch.Tensor, **ends: bool) -> None:
        """Launches over all rows, some of the columns a program, which sums over the columns of ``wide``."""
        config, shape, K = self.asked.config, self.network.shape, len(weights)
        columns = narrow(config.chunk)
        ends = {"ADD": False, "READ": False, "COTANGENT": False} | ends
        narrow_kernel[self.rows // config.tile, shape.H // columns](
            self.wide, weights, out, self.h, bias, self.network.weights.output[shape.D - 1], self.read, K=K,
            BM=config.tile, H=shape.H, BN=columns, BK=depth(weights.element_size(), K),
            PRECISION=shape.PRECISION, num_warps=NARROW_WARPS, num_stages=config.stages, **ends)

    def _forward(self, i: int, keep: bool) -> None:
        shape, weights = self.network.shape, self.network.weights
        kept = (self.slope[i], self.x[i], self.rstd[i]) if keep else (self.wide, self.wide, self.h)
        self._wide(up_kernel, weights.up.shape[1], self.asked.config.chunk, self.h, weights.up[i],
                   weights.up_bias[i], self.wide, *kept, LN_EPS=shape.LN_EPS, KEEP=keep)
        last = i == shape.L - 1
        self._narrow(weights.down[i], self.g[0], weights.down_bias[i], ADD=True, READ=last,
                     COTANGENT=last and keep)

    def _head(self, guided: bool) -> None:
        weights, E = self.network.weights, self.network.shape.E
        self._wide(head_kernel, E, HEAD_COLUMNS, self.h, weights.head, weights.head_bias, weights.head_output,
                   self.wide, self.parts, self.rows, E=E, GUIDED=guided)
        if guided:
            self._narrow(weights.head, self.g[0], weights.head_bias)

    def _backward(self, i: int) -> None:
        weights = self.network.weights
        turn = self.depth - 1 - i
        before, after = self.g[(turn + 1) % 2 if turn else 0], min(i + 1, self.depth - 1)
        self._wide(up_back_kernel, weights.down.shape[1], self.asked.config.chunk, before, self.inner,
                   self.x[after], self.rstd[after], self.g[turn % 2], weights.down[i], self.slope[i],
                   self.wide, START=turn == 0)
        self._narrow(weights.up[i], self.inner, weights.up_bias[i])

    def _step(self, j: int, begin: bool = False) -> None:
        shape, table, network, weights = self.network.shape, self.table, self.network, self.network.weights
        guided = not begin and table.guides(j)
        back = (self.read,) * 4
        if guided:
            back = (self.g[(self.depth - 1) % 2], self.inner, self.x[0], self.rstd[0])
        step_kernel[(self.rows // STEP_ROWS,)](
            self.z, self.clean, self.weight, self.h, self.read, *back,
            self.parts if shape.EARLY else self.h, self.words, self.owners, self.vectors, self.state_words,
            network.packed.time_table, *table.on(self.h.device), *map(float, table.weight_clip),
            float(table.initial), self.asked.n_candidates, self.rows, table.trained_steps, j, weights.input_z,
            weights.output, weights.output_bias, weights.head_output_bias, D=shape.D, DP=shape.DP,
            BM=STEP_ROWS, H=shape.H, PARTS=len(self.parts), BEGIN=begin, END=j == 0, GUIDED=guided,
            CLIP_STATE=table.clip_state, CLIP_CLEAN=table.clip_clean, MULTISTEP=table.multistep,
            PRECISION=shape.PRECISION, num_warps=NARROW_WARPS, num_stages=1)

    def _select(self) -> None:
        asked, shape, table = self.asked, self.network.shape, self.table
        B, N = self.count, asked.n_candidates
        keep_kernel[(self.layout.items,)](
            self.z, self.weight, self.words, self.state_words, float(table.weight_clip[0]),
            1.0 / asked.selection_temperature, *self.best, *self.every, B, N, self.slots, table.trained_steps,
            D=shape.D, DP=shape.DP, BM=KEEP_ROWS, SOFTMAX=asked.softmax,
            WRITE_ALL=asked.return_candidates, MIXED=self.layout.mixed(B, N), num_warps=NARROW_WARPS,
            num_stages=1)
        keep_best_kernel[(B,)](*self.best, *self.kept, self.score, N, self.slots, self.layout.stride,
                               self.layout.tiles, D=shape.D, DP=shape.DP, BM=KEEP_ROWS, BT=REDUCE)
