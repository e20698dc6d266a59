"""The sampler's kernels around the Gluon network of `network`. They take the arguments of
`kernels.fused.portable.kernels` and share its noise, table rows, trees, rankings and selection.

A program's two warp groups walk separate work items, tiles of 64 (`portable.tiles`): of pair p one takes item
2 p, the other item 2 p + 1. Both walk the same phases and rows, since they share one ring of weights. If the
number of items is odd, the second group still walks the last pair but keeps nothing. z and its companions use
layout ``few``, in which four threads of one warp hold a row; between steps they wait in the thread's own
scratch.

A warp group's scratch: ``low`` has L - 1 slots [64, H]; ``wide`` holds eps, d eps_w / dz [64, DP], the parked
h [64, H], z and x0 [64, DP], the weight and the ranking's score [64]. Unguided there is neither ``low`` nor
the parked h.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from swg_fast.kernels.fused.hopper.network import network
from swg_fast.kernels.fused.hopper.records import Grid, Inputs, Numbers, Results, Walk, Weights
from swg_fast.kernels.fused.hopper.selection import keep
from swg_fast.kernels.fused.hopper.shared_memory import ROWS, send_network, shared_memory
from swg_fast.kernels.fused.hopper.triton_compat import barrier
from swg_fast.kernels.fused.portable.sampler_row import CLEAN_SCALE, COLUMNS, GUIDANCE, SIGMA, update
from swg_fast.kernels.fused.portable.tiles import noise_words, owner_of, rows_of, tile_of
from swg_fast.kernels.shared.philox import normal_entries

COLUMNS = gl.constexpr(COLUMNS.value)


@gluon.jit
def scratch_of(wide, DP: gl.constexpr, H: gl.constexpr, GUIDED: gl.constexpr):
    """Addresses of z, x0, the weight and the score."""
    z_at = wide + (2 * DP + (H if GUIDED else 0)) * ROWS
    return z_at, z_at + ROWS * DP, z_at + 2 * ROWS * DP, z_at + (2 * DP + 1) * ROWS


@gluon.jit
def noise(tile, step, inputs, numbers, N, MIXED: gl.constexpr, DP: gl.constexpr, few: gl.constexpr):
    """A tile's standard normals [64, DP] of ``step`` in layout ``few``."""
    entry = gl.arange(0, DP, gl.SliceLayout(0, few)).to(gl.uint32)[None, :]
    candidate, state = noise_words(gl.arange(0, ROWS, gl.SliceLayout(1, few)), tile, N, numbers.first,
                                   inputs.words, MIXED)
    return normal_entries(candidate[:, None], state, step.to(gl.uint32), entry, numbers.k0, numbers.k1)


@gluon.jit
def draw_start(z_at, clean_at, tile, inputs, numbers, N, MIXED: gl.constexpr, D: gl.constexpr,
               DP: gl.constexpr, MULTISTEP: gl.constexpr, few: gl.constexpr):
    """Starts a trajectory: draws z and sets x0 to zero."""
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))[None, :]
    at = gl.arange(0, ROWS, gl.SliceLayout(1, few))[:, None] * DP + entries
    z = numbers.initial_scale * noise(tile, numbers.T, inputs, numbers, N, MIXED, DP, few)
    gl.store(z_at + at, gl.where(entries < D, z, 0.0))
    if MULTISTEP:
        gl.store(clean_at + at, gl.zeros([ROWS, DP], gl.float32, few))


@gluon.jit
def begin(z_at, clean_at, roots, tile, phase, inputs, grid, numbers, TREE: gl.constexpr,
          MIXED: gl.constexpr, MULTISTEP: gl.constexpr, D: gl.constexpr, DP: gl.constexpr, few: gl.constexpr):
    """Writes a phase's first z and x0 to scratch: the initial draw, or the roots'."""
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, few))
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    at = lanes[:, None] * DP + entries[None, :]
    if TREE:
        if phase == 0:
            draw_start(z_at, clean_at, tile, inputs, numbers, grid.candidates, MIXED, D, DP, MULTISTEP, few)
        else:
            root = gl.minimum(((phase - 1) * ROWS + lanes) // grid.leaves, ROWS - 1)
            source = roots + root[:, None] * DP + entries[None, :]
            gl.store(z_at + at, gl.load(source))
            if MULTISTEP:
                gl.store(clean_at + at, gl.load(source + ROWS * DP))
    else:
        draw_start(z_at, clean_at, tile, inputs, numbers, grid.candidates, MIXED, D, DP, MULTISTEP, few)


@gluon.jit
def noise_again(z, z_at, clean_at, row, draw, tile, inputs, numbers, N, MIXED: gl.constexpr, D: gl.constexpr,
                DP: gl.constexpr, few: gl.constexpr):
    """z of a ranking draw, also written to scratch: the finished action with the weight's entry at its mean,
    noised to the ranking's step. The first draw keeps the finished action aside."""
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))[None, :]
    at = gl.arange(0, ROWS, gl.SliceLayout(1, few))[:, None] * DP + entries
    if draw == 0:
        gl.store(clean_at + at, z)
    xi = noise(tile, numbers.T + 2 + draw, inputs, numbers, N, MIXED, DP, few)
    z = gl.where(entries == D - 1, numbers.ranking_mean, gl.load(clean_at + at))
    z = z / gl.load(row + CLEAN_SCALE) + gl.load(row + SIGMA) * xi
    z = gl.where(entries < D, z, 0.0)
    gl.store(z_at + at, z)
    return z


@gluon.jit
def step(xi, wide, z_at, clean_at, weight_at, score_at, row, draw, draws, back, numbers, RANK: gl.constexpr,
         CLIP_STATE: gl.constexpr, CLIP_CLEAN: gl.constexpr, MULTISTEP: gl.constexpr, GUIDED: gl.constexpr,
         PARTLY: gl.constexpr, D: gl.constexpr, DP: gl.constexpr, few: gl.constexpr):
    """Applies a row of the sampler's table to the values in scratch. From ``draw`` 0 on the row is the
    ranking's, and its prediction is added to the score. If ``back`` is 0, the row has no gradient."""
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, few))
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    at = lanes[:, None] * DP + entries[None, :]
    z = gl.load(z_at + at)
    eps = gl.load(wide + at)
    vjp = gl.zeros([ROWS, DP], gl.float32, few)
    if GUIDED:
        vjp = gl.load(wide + ROWS * DP + at)
        if PARTLY:
            vjp = gl.where(back, vjp, 0.0)
    last = z
    if MULTISTEP:
        last = gl.load(clean_at + at)
    z, raw, _, clean = update(z, eps, vjp, xi, last, entries[None, :], row, numbers.w_min, numbers.w_max, D,
                              GUIDED, CLIP_STATE, CLIP_CLEAN, MULTISTEP)
    if RANK:
        if draw >= 0:
            score = raw / draws
            if draw > 0:
                score += gl.load(score_at + lanes)
            gl.store(score_at + lanes, score)
        else:
            gl.store(weight_at + lanes, raw)
        if MULTISTEP:  # noqa: SIM102 - decided by the compiler, the next by the kernel
            if draw < 0:
                gl.store(clean_at + at, clean)
    else:
        gl.store(weight_at + lanes, raw)
        if MULTISTEP:
            gl.store(clean_at + at, clean)
    gl.store(z_at + at, z)


@gluon.jit
def table_rows(phase, walk, TREE: gl.constexpr, RANK: gl.constexpr):
    """(the first row of a phase, how many it walks, how many with the ranking's draws)."""
    top = walk.rows - 1
    length = walk.rows
    if TREE:
        top = gl.where(phase == 0, top, top - walk.shared)
        length = gl.where(phase == 0, walk.shared, walk.rows - walk.shared)
    walked = length
    if RANK:
        walked += walk.draws
        if TREE:
            walked = gl.where(phase == 0, length, walked)
    return top, length, walked


@gluon.jit
def way_back(table, j, whole, PARTLY: gl.constexpr):
    """Whether row j needs a gradient. The ranking's row has no guidance."""
    back = whole
    if PARTLY:
        back = gl.load(table + j * COLUMNS + GUIDANCE) != 0.0
    return back


@gluon.jit
def producer(up, down, head, ends, memory, walk, table, TREE: gl.constexpr, RANK: gl.constexpr,
             PARTLY: gl.constexpr, L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr, H: gl.constexpr,
             BC: gl.constexpr, SLOTS: gl.constexpr):
    """Streams the weights of every network that the consumers evaluate."""
    k = 0
    for turn in range(walk.turns * walk.phases):
        top, length, walked = table_rows(turn % walk.phases, walk, TREE, RANK)
        for i in range(walked):
            whole = i < length
            back = way_back(table, gl.where(whole, top - i, walk.rows), whole, PARTLY)
            k = send_network(up, down, head, ends, k, memory, whole, back, L, E, GUIDED, H, BC, SLOTS)


@gluon.jit
def consumer(inputs, low, wide, roots, weights, memory, walk, grid, numbers, results,
             GROUP: gl.constexpr, TREE: gl.constexpr, RANK: gl.constexpr, SOFTMAX: gl.constexpr,
             WRITE_ALL: gl.constexpr, MIXED: gl.constexpr, CLIP_STATE: gl.constexpr, CLIP_CLEAN: gl.constexpr,
             MULTISTEP: gl.constexpr, D: gl.constexpr, DP: gl.constexpr, L: gl.constexpr, E: gl.constexpr,
             GUIDED: gl.constexpr, PARTLY: gl.constexpr, H: gl.constexpr, BC: gl.constexpr,
             SLOTS: gl.constexpr, LN_EPS: gl.constexpr):
    """Walks the items of warp group GROUP. Untyped arguments are `records`, and its program's scratch."""
    wide_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, H, 16])
    thin: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BC, 16])
    few: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DP, 16])
    lhs: gl.constexpr = gl.DotOperandLayout(0, wide_layout, 2)
    N, items, phases, rows = grid.candidates, grid.items, walk.phases, walk.rows
    worker = (gl.program_id(0) * 2 + GROUP).to(gl.int64)
    low += worker * (L - 1) * ROWS * H
    wide += worker * (4 * DP + (H if GUIDED else 0) + 2) * ROWS
    roots += worker * 2 * ROWS * DP
    z_at, clean_at, weight_at, score_at = scratch_of(wide, DP, H, GUIDED)
    lanes = gl.arange(0, ROWS, gl.SliceLayout(1, few))
    entries = gl.arange(0, DP, gl.SliceLayout(0, few))
    columns = gl.arange(0, H, gl.SliceLayout(0, wide_layout))
    wide_lanes = gl.arange(0, ROWS, gl.SliceLayout(1, wide_layout))
    at = lanes[:, None] * DP + entries[None, :]
    k = 0
    for turn in range(walk.turns * phases):
        item = 2 * (gl.program_id(0) + turn // phases * grid.programs) + GROUP
        phase = turn % phases
        alive = item < items
        item = gl.minimum(item, items - 1)
        tile = tile_of(item, phase, grid.group, grid.leaves, grid.states * N, ROWS, TREE)
        top, length, walked = table_rows(phase, walk, TREE, RANK)
        begin(z_at, clean_at, roots, tile, phase, inputs, grid, numbers, TREE, MIXED, MULTISTEP, D, DP, few)
        for i in range(walked):
            j = top - i
            whole = True
            z = gl.load(z_at + at)
            if RANK:
                draw = i - length
                j = gl.where(draw >= 0, rows, j)
                whole = draw < 0
                if draw >= 0:
                    z = noise_again(z, z_at, clean_at, inputs.table + rows * COLUMNS, draw, tile, inputs,
                                    numbers, N, MIXED, D, DP, few)
            back = way_back(inputs.table, j, whole, PARTLY)
            t = gl.load(inputs.steps + j)
            base = gl.zeros([ROWS, H], gl.float32, wide_layout)
            time_row = gl.load(inputs.time_table + t * H + columns)
            owner = owner_of(rows_of(wide_lanes, tile), tile, N, MIXED)
            if MIXED:
                base = gl.load(inputs.vectors + owner[:, None] * H + columns[None, :]) + time_row[None, :]
            else:
                base += (gl.load(inputs.vectors + owner * H + columns) + time_row)[None, :]
            k = network(z, base, low, wide, weights, k, memory, whole, back, GROUP, D, DP, L, E, GUIDED, H,
                        BC, SLOTS, LN_EPS, wide_layout, thin, few, lhs)
            xi = noise(tile, t, inputs, numbers, N, MIXED, DP, few)
            step(xi, wide, z_at, clean_at, weight_at, score_at, inputs.table + j * COLUMNS, i - length,
                 walk.draws, back, numbers, RANK, CLIP_STATE, CLIP_CLEAN, MULTISTEP, GUIDED, PARTLY, D, DP,
                 few)
        finished = clean_at if RANK else z_at
        keeps = alive
        number = item
        stride = ROWS
        tiles = 1
        if TREE:
            if phase == 0:
                barrier()  # the previous leaves are read
                gl.store(roots + at, gl.load(z_at + at))
                if MULTISTEP:
                    gl.store(roots + ROWS * DP + at, gl.load(clean_at + at))
                barrier()
            keeps = alive & (phase > 0)
            tiles = phases - 1
            number = item * tiles + phase - 1
            stride = grid.group * grid.leaves
        if keeps:
            keep(finished, weight_at, score_at, tile, number, N, grid.slots, stride, tiles, inputs.words,
                 results, numbers, D, DP, RANK, SOFTMAX, WRITE_ALL, MIXED, few)


@gluon.jit(do_not_specialize=["B", "N", "first", "items", "programs", "rows", "T", "k0", "k1", "leaves",
                              "shared", "group", "phases", "draws", "slots"])
def sample_kernel(
    state_vectors, state_words, time_table, table, steps, w_min, w_max, initial_scale, gumbel_scale,
    ranking_mean, low, wide, roots, best_score, best_index, best_weight, best_z, all_z, all_weight,
    all_expected, B, N, first, items, programs, rows, T, k0, k1, leaves, shared, group, phases, draws,
    slots, ends, up, up_bias, down, down_bias, output, output_bias, head, head_bias, head_output,
    head_output_bias, D: gl.constexpr, DP: gl.constexpr, BC: gl.constexpr, H: gl.constexpr,
    L: gl.constexpr, E: gl.constexpr, GUIDED: gl.constexpr, PARTLY: gl.constexpr, CLIP_STATE: gl.constexpr,
    CLIP_CLEAN: gl.constexpr, MULTISTEP: gl.constexpr, TREE: gl.constexpr, RANK: gl.constexpr,
    SOFTMAX: gl.constexpr, WRITE_ALL: gl.constexpr, MIXED: gl.constexpr, LN_EPS: gl.constexpr,
    SLOTS: gl.constexpr, REGISTERS: gl.constexpr,
):
    """The portable `sample_kernel` with tiles of 64, two at a time. ``ends``, ``up``, ``down`` and ``head``
    are tensor maps over [.., H], BC rows at a time."""
    memory = shared_memory(up, L, H, BC, SLOTS, GUIDED)
    turns = gl.cdiv(gl.cdiv(items, 2) - gl.program_id(0), programs)
    walk = Walk(turns, phases, rows, shared, draws)
    inputs = Inputs(state_vectors, state_words, time_table, table, steps)
    weights = Weights(up_bias, down_bias, output, output_bias, head_bias, head_output, head_output_bias)
    grid = Grid(B, N, items, programs, leaves, group, slots)
    numbers = Numbers(first, T, k0.to(gl.uint32), k1.to(gl.uint32), w_min, w_max, initial_scale, gumbel_scale,
                      ranking_mean)
    results = Results(best_score, best_index, best_weight, best_z, all_z, all_weight, all_expected)
    gl.warp_specialize([
        (consumer, (inputs, low, wide, roots, weights, memory, walk, grid, numbers, results, gl.constexpr(0),
                    TREE, RANK, SOFTMAX, WRITE_ALL, MIXED, CLIP_STATE, CLIP_CLEAN, MULTISTEP, D, DP, L, E,
                    GUIDED, PARTLY, H, BC, SLOTS, LN_EPS)),
        (consumer, (inputs, low, wide, roots, weights, memory, walk, grid, numbers, results, gl.constexpr(1),
                    TREE, RANK, SOFTMAX, WRITE_ALL, MIXED, CLIP_STATE, CLIP_CLEAN, MULTISTEP, D, DP, L, E,
                    GUIDED, PARTLY, H, BC, SLOTS, LN_EPS)),
        (producer, (up, down, head, ends, memory, walk, table, TREE, RANK, PARTLY, L, E, GUIDED, H, BC,
                    SLOTS)),
    ], [4, 1], [REGISTERS, 24])
