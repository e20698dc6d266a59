"""The guided step for CPUs that have a C compiler: oneDNN's packed layers, and between them one fused
pass of `native.c` each. A tile of candidates walks through all T steps in the core's cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swg_fast.kernels.cpu.c_loops import MAX_HIDDEN, MAX_LATENT, SUFFIX, Library
from swg_fast.kernels.cpu.network_onednn import PackedLayers
from swg_fast.kernels.shared.packing import ROW_MULTIPLE, PackedNetwork
from swg_fast.kernels.shared.sampler_table import Latent, Ranking, SamplerTable, Words


@dataclass
class Tile:
    """The buffers of M candidates, made once a walk: h and its cotangent g in float32, g and every
    block's normalised input in the compute type T, 1 / std, SiLU's slopes, and the sampler's rows, the
    last x0 among them."""

    h: torch.Tensor
    g: torch.Tensor
    g_low: torch.Tensor
    x: torch.Tensor
    rstd: torch.Tensor
    slopes: torch.Tensor
    z: torch.Tensor
    eps: torch.Tensor
    vjp: torch.Tensor
    noise: torch.Tensor
    gradient: torch.Tensor
    weight: torch.Tensor
    clean: torch.Tensor


class NativeNetwork(PackedLayers):
    """The guided step with native.c's loops between the products."""

    def __init__(self, packed: PackedNetwork, library: Library) -> None:
        super().__init__(packed)
        self.library = library
        suffix = SUFFIX[packed.dtype]
        (self.silu, self.multiply, self.add_normalise, self.normalise_vjp, self.read_out, self.add,
         self.early_head, self.widen) = (
            getattr(library, f"{name}_{suffix}")
            for name in ("silu", "multiply", "add_normalise", "normalise_vjp", "read_out", "add",
                         "early_head", "widen"))
        self.input_rows = packed.input_z.T.contiguous()
        self.head_bias = float(packed.head_output_bias) if self.early else 0.0

    @staticmethod
    def supports(packed: PackedNetwork) -> bool:
        """Whether native.c's buffers hold this network's rows."""
        return packed.hidden_dim <= MAX_HIDDEN and packed.latent_dim <= MAX_LATENT \
            and packed.dtype in SUFFIX

    def tile(self, rows: int, guided: bool) -> Tile:
        """Buffers for ``rows`` candidates."""
        H, D, L = self.packed.hidden_dim, self.packed.latent_dim, self.packed.num_blocks
        low = self.packed.dtype
        back = self.depth if guided else 0

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device="cpu")

        return Tile(h=new(rows, H), g=new(rows, H), g_low=new(rows, H, dtype=low),
                    x=new(L, rows, H, dtype=low), rstd=new(L, rows), slopes=new(back, rows, 4 * H, dtype=low),
                    z=new(rows, D), eps=new(rows, D), vjp=new(rows, D), noise=new(rows, D).zero_(),
                    gradient=new(rows, D), weight=new(rows), clean=new(rows, D))

    def eps_and_weight_vjp(self, tile: Tile, vectors: torch.Tensor, owners: torch.Tensor, t: int | None,
                           guided: bool, weight_alone: bool = False) -> None:
        """Step t's eps and, if ``guided``, d eps_w / dz of ``tile.z``, into the tile. Row r belongs to
        `vectors[owners[r]]`, of size H. With ``weight_alone`` an early head's eps_w is all there is."""
        packed, h = self.packed, tile.h
        M, H = h.shape
        D, E = packed.latent_dim, 4 * H
        self.library.input_layer(M, H, D, tile.z, vectors, owners, packed.time_row(t), self.input_rows, h)
        sums = None
        for i in range(packed.num_blocks):
            self.add_normalise(M, H, packed.layer_norm_eps, h, sums, tile.x[i], tile.rstd[i])
            a = self.up[i](tile.x[i])
            self.silu(M * E, a, tile.slopes[i] if guided and i < self.depth else None)
            sums = self.down[i](a)
            if self.early and i == 1:
                self.add(M, H, h, sums, tile.g_low)
                head, sums = self.head(tile.g_low), None
                self.early_head(M, head.shape[1], D, head, packed.head_output, self.head_bias, tile.eps)
                if weight_alone:
                    return
        own = guided and not self.early  # the weight is the read-out's last row
        self.read_out(M, H, D, packed.output.shape[0], h, sums, packed.output, packed.output_bias, tile.eps,
                      tile.g if own else None, tile.g_low if own else None)
        if not guided:
            return
        g_low = tile.g_low
        if self.early:
            g_low = self.head_back(head)
            self.widen(M * H, g_low, tile.g)
        for i in reversed(range(self.depth)):
            inner = self.down_back[i](g_low)
            self.multiply(M * E, inner, tile.slopes[i])
            outer = self.up_back[i](inner)
            self.normalise_vjp(M, H, outer, tile.x[i], tile.rstd[i], tile.g, g_low)
        self.library.input_vjp(M, H, D, tile.g, self.input_rows, tile.vjp)

    def update(self, tile: Tile, table: SamplerTable, j: int) -> None:
        """Row j of the sampler's table applied to ``tile.z`` with ``tile.noise``; leaves the new weight
        before any clip, the gradient and, where the table is multistep, x0."""
        coefficients, _ = table.on(tile.z.device)
        self.library.update(*tile.z.shape, coefficients[j], *map(float, table.weight_clip),
                            int(table.clip_state), int(table.clip_clean), tile.eps,
                            tile.vjp if table.guides(j) else None, tile.noise,
                            tile.z, tile.weight, tile.gradient, tile.clean if table.multistep else None)

    def walk(self, table: SamplerTable, vectors: torch.Tensor, words: Words, seed: int,
             rows: Sequence[int], start: Latent | None = None) -> Latent:
        """The table's ``rows`` for M candidates, from ``start`` or else the initial draw.

        vectors [B, H] is hoisted. Rows are padded to a multiple of `ROW_MULTIPLE`.
        """
        M = len(words.owners)
        words = words.padded(ROW_MULTIPLE)
        vectors, tile = vectors.contiguous(), self.tile(len(words.owners), table.guided)
        key = (seed & 0xFFFFFFFF, seed >> 32)

        def draw(step: int, out: torch.Tensor) -> None:
            self.library.normals(*out.shape, words.candidates, words.states, step, *key, out)

        tile.z.zero_()
        if start is not None:
            tile.z[:M] = start.z
            if start.clean is not None:
                tile.clean.zero_()[:M] = start.clean
        elif table.initial:
            draw(table.trained_steps, tile.z)
            tile.z.mul_(table.initial)
        for j in rows:
            self.eps_and_weight_vjp(tile, vectors, words.owners, table.steps[j], table.guides(j))
            if j in table.noisy:
                draw(table.steps[j], tile.noise)
            self.update(tile, table, j)
        return Latent(tile.z[:M], tile.clean[:M] if table.multistep else None, tile.weight[:M])

    def expect(self, ranking: Ranking, vectors: torch.Tensor, words: Words, seed: int, z: torch.Tensor
               ) -> torch.Tensor:
        """The ranking's estimate of E[w | a, s] of M finished candidates z [M, D]: [M]."""
        return self.renoised(ranking, vectors, words, seed, z, weight_alone=True)[1]

    def renoised(self, ranking: Ranking, vectors: torch.Tensor, words: Words, seed: int, z: torch.Tensor,
                 weight_alone: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Of M finished candidates z [M, D], noised again by the ranking's draws: the mean squared error of
        the noise predicted in the action's entries, left out (0) for the ``weight_alone``, and the mean
        predicted weight; [M] each."""
        M, words, vectors = len(z), words.padded(ROW_MULTIPLE), vectors.contiguous()
        tile = self.tile(len(words.owners), False)
        centred = tile.clean.zero_()
        centred[:M] = ranking.signal * z
        centred[:, -1] = ranking.signal * ranking.mean
        total, error = tile.weight.zero_(), torch.zeros_like(tile.weight)
        for word in ranking.words:
            self.library.normals(*tile.noise.shape, words.candidates, words.states, word, seed & 0xFFFFFFFF,
                                 seed >> 32, tile.noise)
            torch.add(centred, tile.noise, alpha=ranking.sigma, out=tile.z)
            self.eps_and_weight_vjp(tile, vectors, words.owners, ranking.step, False, weight_alone)
            total += tile.z[:, -1] - ranking.sigma * tile.eps[:, -1]
            if not weight_alone:
                error += (tile.eps - tile.noise)[:, :-1].square().sum(dim=1)
        return error[:M] / ranking.draws, total[:M] / (ranking.signal * ranking.draws)

    def read(self, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        """E[w | a, s] of M finished candidates z [M, D] as the network reads it in one pass: [M]."""
        M, words = len(z), words.padded(ROW_MULTIPLE)
        tile = self.tile(len(words.owners), False)
        tile.z.zero_()[:M, :-1] = z[:, :-1]
        self.eps_and_weight_vjp(tile, vectors.contiguous(), words.owners, None, False, weight_alone=True)
        return -tile.eps[:M, -1]
