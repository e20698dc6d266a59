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
from swg_fast.kernels.fused.portable.kernels import sample_kernel
from swg_fast.kernels.fused.portable.selection import keep_best_kernel
from swg_fast.kernels.fused.records import Asked, Drawn, ScratchSizes, Shape, Weights
from swg_fast.kernels.shared.devices import current
from swg_fast.kernels.shared.packing import PackedNetwork
from swg_fast.kernels.shared.sampler_table import SamplerTable, Tree

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


def scratch_sizes(hidden: int, blocks: int, padded: int, tile: int) -> ScratchSizes:
    """Scratch of a program of `portable.kernels` (which documents its layout)."""
    return ScratchSizes(LOW=(blocks + 2) * hidden * tile, WIDE=(hidden + blocks + 4 * padded + 3) * tile)


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
        return cls(packed, dtype, weights, Shape(
            D, DP, H, L, E=packed.head_hidden.shape[0] if early else 0, EARLY=early,
            LN_EPS=packed.layer_norm_eps, PRECISION=PRECISIONS[dtype]))

    def sizes(self, config: Config) -> ScratchSizes:
        """Scratch sizes of a running tile."""
        sizes = hopper_launch.scratch_sizes if config.kind == "gluon" else scratch_sizes
        return sizes(self.shape.H, self.shape.L, self.shape.DP, config.tile)

    def scratch(self, tiles: int, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
        """Scratch of the tiles that run together, in the weights' type and in float32; it fits the L2
        cache."""
        sizes, device = self.sizes(config), self.packed.device
        return (_unwritten(device, tiles * sizes.LOW, dtype=DTYPES[self.dtype]),
                _unwritten(device, tiles * sizes.WIDE))

    def run(self, programs: int, config: Config, arguments: tuple[Any, ...], **sampler: bool) -> None:
        """Launches the ``sample_kernel`` of the configuration's kind."""
        if config.kind == "gluon":
            hopper_launch.run(programs, self, config, arguments, **sampler)
            return
        sample_kernel[(programs,)](*arguments, *self.weights, **sampler, BM=config.tile, BC=config.chunk,
                                   **self.shape._asdict(), **self.sizes(config)._asdict(),
                                   num_warps=config.warps, num_stages=config.stages)

    def configs(self, candidates: int, layers: bool = True) -> tuple[Config, ...]:
        """The configurations to choose among for this many candidates in all, the default first. Without
        ``layers`` the layered kernels, which have no trees and no rankings, are left out."""
        device, shape = self.packed.device, self.shape
        layers = layers and candidates <= LAYERS_UP_TO
        if device.type != "cuda":  # the interpreter: small tiles, so that odd sizes meet their edges
            few = (Config(32, 128, 4, 1, kind="layers"),) if layers else ()
            return (*few, Config(16, 128, 4, 1), Config(32, 128, 4, 1))
        major, minor = torch.cuda.get_device_capability(device)
        processors = _processors(device)
        few = layered(shape.H, self.dtype, candidates, processors) if layers else ()
        gluon = hopper_launch.unsupported(shape.H, shape.D, self.dtype, shape.L) is None
        return (*few, *suitable(major * 10 + minor, shape.H, self.dtype, candidates, processors, gluon))

    def config(self, candidates: int, guided: bool, layers: bool = True) -> Config:
        """The tuned configuration for this many candidates on this device, or the table's default."""
        name = tuning.key(self.packed.device, self.shape, self.dtype, guided, candidates)
        tuned = tuning.remembered(name)
        if tuned is None or (tuned.kind == "layers" and not layers):
            return self.configs(candidates, layers)[0]
        return tuned


def round_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """float32 rounded to tf32's 10 bits of mantissa, as the kernels round their operands."""
    return ((tensor.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _unwritten(device: torch.device, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Uninitialised memory for a kernel to write; tests replace it with NaN."""
    return torch.empty(shape, dtype=dtype, device=device)


def _key(seed: int) -> tuple[int, int]:
    """The seed's two words as signed 32-bit integers."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return tuple(word - (1 << 32) if word >= 1 << 31 else word for word in (low, high))


def _on_its_device(launcher: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the network's device current, since Triton launches on the current device."""

    @functools.wraps(launcher)
    def launch(network: KernelNetwork, *arguments: Any, **keywords: Any) -> Any:
        with current(network.packed.device):
            return launcher(network, *arguments, **keywords)

    return launch


@_on_its_device
def sample(network: KernelNetwork, table: SamplerTable, state_vectors: torch.Tensor,
           state_words: torch.Tensor, asked: Asked) -> Drawn:
    """Walks the table and selects for B states, state_vectors [B, H] and state_words [B], in two launches;
    few candidates take many short launches instead (`layered.launch`). Besides its results it needs memory
    for the running programs' scratch, a tree's roots, and a few numbers a tile.

    Raises `ValueError` if a configuration for the layered kernels meets a tree or a ranking.
    """
    plain = asked.tree is None and asked.ranking is None
    config = asked.config or network.config(len(state_vectors) * asked.n_candidates, table.guided, plain)
    if config.kind != "layers":
        return _sample_tiles(network, table, state_vectors, state_words, asked, config)
    if not plain:
        raise ValueError("the layered kernels have no trees and no rankings; use another configuration")
    return layered_launch.sample(network, table, state_vectors, state_words, replace(asked, config=config),
                                 functools.partial(_unwritten, state_vectors.device))


def _sample_tiles(network: KernelNetwork, table: SamplerTable, state_vectors: torch.Tensor,
                  state_words: torch.Tensor, asked: Asked, config: Config) -> Drawn:
    """`sample` by the kernels whose programs walk tiles of candidates."""
    B, N, D, DP = len(state_vectors), asked.n_candidates, network.shape.D, network.shape.DP
    device, tree, ranking = state_vectors.device, asked.tree, asked.ranking
    groups = hopper_launch.GROUPS if config.kind == "gluon" else 1
    resident = groups * _resident_programs(device)  # tiles that run together
    layout = Layout(group=0, items=-(-N // config.tile), phases=1)
    if tree is not None:
        layout = grouping(B, N, tree, table.num_steps, config.tile, resident)
    tiles = layout.items * max(1, layout.phases - 1)
    programs = -(-min(B * layout.items, resident) // groups)
    together = programs * groups
    new = functools.partial(_unwritten, device)
    best = (new(B, tiles), new(B, tiles, dtype=torch.int32), new(B, tiles), new(B, tiles, DP))
    every = (B, N) if asked.return_candidates else (1,)
    all_z, all_weight, all_expected = new(*every, D), new(*every), new(*every if ranking else (1,))
    rows, steps = table.on(device)
    if ranking is not None:
        rows = torch.cat([rows, ranking.row().float().to(device)[None]])
        steps = torch.cat([steps, steps.new_tensor([ranking.step])])
    network.run(programs, config, (
        state_vectors, state_words, network.packed.time_table, rows, steps, *map(float, table.weight_clip),
        float(table.initial), 1.0 / asked.selection_temperature, ranking.mean if ranking else 0.0,
        *network.scratch(together, config), new(together if tree else 1, 2, config.tile, DP), *best, all_z,
        all_weight, all_expected, B, N, asked.first, layout.items, programs, table.num_steps,
        table.trained_steps, *_key(asked.seed), tree.leaves if tree else 1, tree.shared if tree else 0,
        layout.group, layout.phases, ranking.draws if ranking else 0),
        GUIDED=table.guided, CLIP_STATE=table.clip_state, CLIP_CLEAN=table.clip_clean,
        MULTISTEP=table.multistep, TREE=tree is not None, RANK=ranking is not None, SOFTMAX=asked.softmax,
        WRITE_ALL=asked.return_candidates)
    kept = (new(B, D - 1), new(B), new(B, dtype=torch.int64))
    keep_best_kernel[(B,)](*best, *kept, tiles, D=D, DP=DP, BT=REDUCE)
    return Drawn(*kept, *((all_z, all_weight, all_expected if ranking else None)
                          if asked.return_candidates else ()))


class Layout(NamedTuple):
    """Roots a work item (0 without a tree), items a state, and phases an item."""

    group: int
    items: int
    phases: int


def grouping(states: int, n_candidates: int, tree: Tree, rows: int, tile: int, resident: int) -> Layout:
    """The layout of a tree whose longest program walks the fewest rows. Large groups share a tile of roots
    among more leaves; small ones keep more programs busy."""
    roots = n_candidates // tree.leaves
    found = []
    for group in sorted({min(roots, 1 << k) for k in range(tile.bit_length())}):
        items, tiles = -(-roots // group), -(-group * tree.leaves // tile)
        walked = tree.shared + (rows - tree.shared) * tiles
        found.append((-(-states * items // resident) * walked, states * items * walked,
                      Layout(group, items, 1 + tiles)))
    return min(found)[2]


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _resident_programs(device: torch.device) -> int:
    """The most programs to launch: one a multiprocessor, since one fills its registers."""
    return _processors(device) if device.type == "cuda" else 3
