"""Launches the fused kernels: layout, scratch, grid, and the networks that they do not support."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

from swg_fast.kernels.fused import tuning
from swg_fast.kernels.fused.configurations import LAYERS_UP_TO, Config, layered, suitable
from swg_fast.kernels.fused.hopper import launch as hopper_launch
from swg_fast.kernels.fused.layered import launch as layered_launch
from swg_fast.kernels.fused.layered.plan import REDUCE
from swg_fast.kernels.fused.layout import parts, plain_layout, tree_layout
from swg_fast.kernels.fused.portable.kernels import sample_kernel
from swg_fast.kernels.fused.portable.selection import keep_best_kernel
from swg_fast.kernels.fused.records import Asked, Drawn, ScratchSizes, Shape, Weights, Work
from swg_fast.kernels.shared.devices import current, refuse_capture, settle, shared_memory
from swg_fast.kernels.shared.packing import PackedNetwork
from swg_fast.kernels.shared.sampler_table import SamplerTable

HIDDEN_SIZES = (64, 128, 256)
DTYPES = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
PRECISIONS = {"bf16": "ieee", "tf32": "tf32", "fp32": "ieee"}


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def unsupported(hidden: int, blocks: int, latent: int, head_width: int | None) -> str | None:
    """Why the kernels cannot run a network of this shape, in words; None if they can."""
    if hidden not in HIDDEN_SIZES:
        return f"hidden_dim {hidden} (the fused kernels have {', '.join(map(str, HIDDEN_SIZES))})"
    if not 1 <= blocks <= 6:
        return f"{blocks} blocks (the fused kernels have 1 to 6)"
    if latent > 32:
        return f"{latent - 1} actions (the fused kernels have up to 31)"
    if head_width is not None and head_width % 64:
        return f"an early head {head_width} wide (the fused kernels need a multiple of 64)"
    return None


def scratch_sizes(hidden: int, blocks: int, padded: int, tile: int, guided: bool = True) -> ScratchSizes:
    """Scratch of a program of `portable.kernels` (which documents its layout)."""
    kept = blocks if guided else 0
    return ScratchSizes(LOW=(2 + kept) * hidden * tile, WIDE=(hidden + kept + 4 * padded + 3) * tile)


@dataclass(frozen=True)
class KernelNetwork:
    """A packed network in the kernels' layout. z's side is padded to DP; ``down`` is transposed, so that
    every chunk of the wide layer is contiguous rows of H; weights before a SiLU are halved, for the kernels'
    SiLU(2 u)."""

    packed: PackedNetwork
    dtype: str
    weights: Weights
    shape: Shape

    @cached_property
    def state_rows(self) -> torch.Tensor:
        """The input layer's weights of the state, [S, H] float32."""
        rows = self.packed.input_s.T.contiguous()
        settle(rows.device)  # any stream may read it
        return rows

    @cached_property
    def streamed(self) -> dict[Config, tuple[Any, ...]]:
        """`hopper_launch.arguments` by configuration, made at the first launch of each."""
        return {}

    @cached_property
    def plans(self) -> OrderedDict[Any, layered_launch.Decisions]:
        """The plans that `layered_launch.sample` keeps, in the order of their last use."""
        return OrderedDict()

    @classmethod
    def lay_out(cls, packed: PackedNetwork, dtype: str) -> KernelNetwork:
        D, H, L = packed.latent_dim, packed.hidden_dim, packed.num_blocks
        early = packed.weight_head == "early"
        reason = unsupported(H, L, D, packed.head_hidden.shape[0] if early else None)
        if reason:
            raise ValueError(f"not supported by the fused kernels: {reason}")
        DP = 16 if D <= 16 else 32
        kind, device = DTYPES[dtype], packed.device

        def pad(rows: torch.Tensor, to: torch.dtype) -> torch.Tensor:
            out = torch.zeros(DP, *rows.shape[1:], dtype=to, device=device)
            out[: len(rows)] = rows
            return out

        def weight(tensor: torch.Tensor, half: bool = False) -> torch.Tensor:
            tensor = (0.5 * tensor if half else tensor).to(kind)
            return round_tf32(tensor) if dtype == "tf32" else tensor

        empty = torch.zeros(1, dtype=kind, device=device)
        wide = torch.zeros(1, dtype=torch.float32, device=device)
        weights = Weights(
            pad(packed.input_z.T, torch.float32), weight(packed.up, half=True).contiguous(),
            0.5 * packed.up_bias, weight(packed.down.transpose(1, 2)).contiguous(), packed.down_bias,
            weight(pad(packed.output, kind)), pad(packed.output_bias, torch.float32),
            *((weight(packed.head_hidden, half=True), 0.5 * packed.head_hidden_bias,
               packed.head_output.float(), packed.head_output_bias) if early else (empty, wide, wide, wide)))
        settle(device)  # any stream may read them
        return cls(packed, dtype, weights, Shape(
            D, DP, H, L, E=packed.head_hidden.shape[0] if early else 0, EARLY=early,
            LN_EPS=packed.layer_norm_eps, PRECISION=PRECISIONS[dtype]))

    def sizes(self, config: Config, guided: bool) -> ScratchSizes:
        """Scratch sizes of a running tile."""
        sizes = hopper_launch.scratch_sizes if config.kind == "gluon" else scratch_sizes
        return sizes(self.shape.H, self.shape.L, self.shape.DP, config.tile, guided)

    def scratch(self, tiles: int, config: Config, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Scratch of the tiles that run together, in the weights' type and in float32; it fits the L2
        cache."""
        sizes, device = self.sizes(config, guided), self.packed.device
        return (_unwritten(device, tiles * sizes.LOW, dtype=DTYPES[self.dtype]),
                _unwritten(device, tiles * sizes.WIDE))

    def run(self, programs: int, config: Config, arguments: tuple[Any, ...], **sampler: bool) -> None:
        """Launches the ``sample_kernel`` of the configuration's kind."""
        if config.kind == "gluon":
            hopper_launch.run(programs, self, config, arguments, **sampler)
            return
        sample_kernel[(programs,)](*arguments, *self.weights, **sampler, BM=config.tile, BC=config.chunk,
                                   **self.shape._asdict(),
                                   **self.sizes(config, sampler["GUIDED"])._asdict(),
                                   num_warps=config.warps, num_stages=config.stages)

    def configs(self, work: Work) -> tuple[Config, ...]:
        """The configurations to choose among, the default first; `UsageError` where none fits the device. The
        layered kernels have no trees and no rankings."""
        device, shape, candidates = self.packed.device, self.shape, work.states * work.candidates
        layers = work.plain and candidates <= LAYERS_UP_TO
        if device.type != "cuda":  # the interpreter: small tiles, so that odd sizes meet their edges
            few = (Config(32, 128, 4, 1, kind="layers"),) if layers else ()
            return (*few, Config(16, 128, 4, 1), Config(32, 128, 4, 1))
        major, minor = torch.cuda.get_device_capability(device)
        processors = _processors(device)
        few = layered(shape.H, self.dtype, candidates, processors) if layers else ()
        gluon = hopper_launch.unsupported(shape.H, shape.D, self.dtype, shape.L) is None
        return (*few, *suitable(major * 10 + minor, shape.H, self.dtype, candidates, processors, gluon,
                                shared_memory(device)))

    def config(self, work: Work) -> Config:
        """The tuned configuration for this work on this device, or the table's default."""
        tuned = tuning.remembered(tuning.key(self.packed.device, self.shape, self.dtype, work))
        return tuned if tuned is not None else self.configs(work)[0]


def round_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """float32 rounded to tf32's 10 bits of mantissa, as the kernels round their operands."""
    return ((tensor.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _unwritten(device: torch.device, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Uninitialised memory for a kernel to write; tests replace it with NaN."""
    return torch.empty(shape, dtype=dtype, device=device)


def _key(seed: int) -> tuple[int, int]:
    """The seed's two words as signed 32-bit integers."""
    return _signed(seed & 0xFFFFFFFF), _signed(seed >> 32)


def _signed(word: int) -> int:
    """The signed 32-bit integer with a word's bits: one type, and so one kernel, serves all words."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _on_its_device(launcher: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the network's device current, since Triton launches on the current device; there no CUDA graph of
    the caller's may be captured (`UsageError`)."""

    @functools.wraps(launcher)
    def launch(network: KernelNetwork, *arguments: Any, **keywords: Any) -> Any:
        with current(network.packed.device):
            refuse_capture(network.packed.device)
            return launcher(network, *arguments, **keywords)

    return launch


@_on_its_device
def sample(network: KernelNetwork, table: SamplerTable, states: torch.Tensor, state_words: torch.Tensor,
           asked: Asked) -> Drawn:
    """Walks the table and selects for B states, states [B, S] and state_words [B], in two launches for each
    of `layout.parts`; few candidates take many short launches instead (`layered.launch`). Besides its
    results it needs memory for the running programs' scratch, a tree's roots, and a few numbers a tile.

    Raises `ValueError` if a configuration for the layered kernels meets a tree or a ranking, and for more
    leaves of a root than a launch takes.
    """
    work = Work.of(len(states), asked, table)
    config = asked.config or network.config(work)
    if config.kind != "layers":
        vectors = network.packed.hoist_states(states)
        return _sample_parts(network, table, vectors, state_words.contiguous(), asked, config)
    if not work.plain:
        raise ValueError("the layered kernels have no trees and no rankings; use another configuration")
    return layered_launch.sample(network, table, states, state_words, replace(asked, config=config),
                                 functools.partial(_unwritten, states.device))


class Kept(NamedTuple):
    """The kept candidates of n states: actions [n, A], weights, indices and scores [n]."""

    actions: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    scores: torch.Tensor


class Every(NamedTuple):
    """Memory for all candidates of n states, or of a part of them: z [n, N, D], weights and expected weights
    [n, N]; of one element each where they are not asked for."""

    z: torch.Tensor
    weights: torch.Tensor
    expected: torch.Tensor


def _sample_parts(network: KernelNetwork, table: SamplerTable, state_vectors: torch.Tensor,
                  state_words: torch.Tensor, asked: Asked, config: Config) -> Drawn:
    """`sample` by the kernels whose programs walk tiles of candidates."""
    B, N, device = len(state_vectors), asked.n_candidates, state_vectors.device
    new = functools.partial(_unwritten, device)
    shape = (B, N) if asked.return_candidates else (1, 1)
    ranked = asked.ranking is not None
    every = Every(new(*shape, network.shape.D), new(*shape), new(*shape if ranked else (1, 1)))
    drawn = []
    for part in parts(B, N, asked.tree.leaves if asked.tree is not None else 1):
        if drawn:
            settle(device)  # so that Ctrl-C need not wait for all parts
        states, candidates = part.states, slice(part.first, part.first + part.count)
        there = asked.return_candidates
        place = Every(*(memory[states, candidates] if there else memory for memory in every))
        kept = _sample_part(network, table, state_vectors[states], state_words[states],
                            replace(asked, first=asked.first + part.first, n_candidates=part.count), config,
                            place)
        drawn.append(kept._replace(indices=kept.indices + part.first) if part.first else kept)
    actions, weights, indices, _ = _best(drawn, B)
    return Drawn(actions, weights, indices, *((*every[:2], every.expected if ranked else None)
                                              if asked.return_candidates else ()))


def _best(drawn: list[Kept], states: int) -> Kept:
    """The results of all launches: of several states each, or each of a part of one state's candidates. Of
    equal scores the first part's is kept."""
    if len(drawn) == 1:
        return drawn[0]
    every = Kept(*map(torch.cat, zip(*drawn, strict=True)))
    of_a_state = len(every.scores) // states
    best = every.scores.unflatten(0, (states, of_a_state)).argmax(1)
    return Kept(*(part.unflatten(0, (states, of_a_state))[torch.arange(states, device=best.device), best]
                  for part in every))


def _sample_part(network: KernelNetwork, table: SamplerTable, state_vectors: torch.Tensor,
                 state_words: torch.Tensor, asked: Asked, config: Config, every: Every) -> Kept:
    """One launch and its selection. ``every`` is the memory of its candidates."""
    B, N, D, DP = len(state_vectors), asked.n_candidates, network.shape.D, network.shape.DP
    device, tree, ranking = state_vectors.device, asked.tree, asked.ranking
    groups = hopper_launch.GROUPS if config.kind == "gluon" else 1
    resident = groups * _resident_programs(device)  # tiles that run together
    if tree is None:
        layout = plain_layout(B * N, config.tile)
    else:
        layout = tree_layout(B * N // tree.leaves, tree, table.num_steps, config.tile, resident)
    programs = -(-min(layout.items, resident) // groups)
    together, slots = programs * groups, layout.slots(N)
    new = functools.partial(_unwritten, device)
    best = (new(B, slots), new(B, slots, dtype=torch.int32), new(B, slots), new(B, slots, DP))
    rows, steps = table.on(device)
    if ranking is not None:
        rows = torch.cat([rows, ranking.row().float().to(device)[None]])
        steps = torch.cat([steps, steps.new_tensor([ranking.step])])
    network.run(programs, config, (
        state_vectors, state_words, network.packed.time_table, rows, steps, *map(float, table.weight_clip),
        float(table.initial), 1.0 / asked.selection_temperature, ranking.mean if ranking else 0.0,
        *network.scratch(together, config, table.guided), new(together if tree else 1, 2, config.tile, DP),
        *best, *every, B, N, _signed(asked.first), layout.items, programs, table.num_steps,
        table.trained_steps, *_key(asked.seed), tree.leaves if tree else 1, tree.shared if tree else 0,
        layout.group, layout.phases, ranking.draws if ranking else 0, slots),
        GUIDED=table.guided, PARTLY=table.partly_guided, CLIP_STATE=table.clip_state,
        CLIP_CLEAN=table.clip_clean, MULTISTEP=table.multistep, TREE=tree is not None,
        RANK=ranking is not None, SOFTMAX=asked.softmax, WRITE_ALL=asked.return_candidates,
        MIXED=layout.mixed(B, N))
    kept = Kept(new(B, D - 1), new(B), new(B, dtype=torch.int64), new(B))
    keep_best_kernel[(B,)](*best, *kept, N, slots, layout.stride, layout.tiles, D=D, DP=DP, BM=config.tile,
                           BT=REDUCE)
    return kept


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _resident_programs(device: torch.device) -> int:
    """The most programs to launch: one a multiprocessor, since one fills its registers."""
    return _processors(device) if device.type == "cuda" else 3
