"""Records that the Gluon kernels pass to one another: named tuples, which Triton takes apart by field."""

from __future__ import annotations

from typing import Any, NamedTuple


class Memory(NamedTuple):
    """Shared memory (`shared_memory`): the ring's slots, the barriers for full and for empty slots, and x, g
    and 1 / std of both warp groups."""

    ring: Any
    full: Any
    empty: Any
    x: Any
    g: Any
    rstd: Any


class Weights(NamedTuple):
    """Pointers to the weights that are not streamed."""

    up_bias: Any
    down_bias: Any
    output: Any
    output_bias: Any
    head_bias: Any
    head_output: Any
    head_output_bias: Any


class Inputs(NamedTuple):
    """Pointers to a launch's inputs: the states' vectors and noise words, the time table, the sampler's table
    and the steps of its rows."""

    vectors: Any
    words: Any
    time_table: Any
    table: Any
    steps: Any


class Walk(NamedTuple):
    """The loops of producer and consumers: turns of a program, phases of a turn, rows of the table, rows that
    a tree's roots walk, and the ranking's draws."""

    turns: Any
    phases: Any
    rows: Any
    shared: Any
    draws: Any


class Grid(NamedTuple):
    """States, candidates of each, work items, programs, leaves of a root, roots of an item, and the places
    that a state has for its tiles' best candidates."""

    states: Any
    candidates: Any
    items: Any
    programs: Any
    leaves: Any
    group: Any
    slots: Any


class Numbers(NamedTuple):
    """The first candidate, the trained steps, the noise's key, and settings of sampler and selection."""

    first: Any
    T: Any
    k0: Any
    k1: Any
    w_min: Any
    w_max: Any
    initial_scale: Any
    gumbel_scale: Any
    ranking_mean: Any


class Results(NamedTuple):
    """Pointers to each tile's best candidate and, on request, to all candidates."""

    best_score: Any
    best_index: Any
    best_weight: Any
    best_z: Any
    all_z: Any
    all_weight: Any
    all_expected: Any
