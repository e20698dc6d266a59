"""The static cost model: cycles of short listings, computed by hand from the widths in `sass_replay`; a small
kernel's loops with their trips; and the bytes of the traffic report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux alone")
from tests.analysis import cycle_model
from tests.analysis.l2_traffic import bytes_per_candidate, gluon_bytes_per_candidate
from tests.analysis.sass_listing import instructions
from tests.analysis.sass_replay import Ring, cycles_a_trip, cycles_once

UP = "HGMMA.64x32x16.F32.BF16 R24, gdesc[UR4], R24"  # a chunk of 32 columns, both operands from memory
DOWN = "HGMMA.64x64x16.F32.BF16 R24, R152, gdesc[UR4], R24"  # 64 columns, one operand from registers
WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"


@dataclass(frozen=True)
class Line:
    """An instruction with its control word's fields; ``back``: a branch over that many lines before it."""

    text: str
    stall: int = 1
    writes: int = 7  # scoreboards released by its result and by reading its operands; 7 is none
    reads: int = 7
    waits: int = 0
    back: int = 0


def sass(lines, start: int = 0) -> str:
    """A listing as `cuobjdump -sass` prints it."""
    out = []
    for i, line in enumerate(lines):
        line = Line(line) if isinstance(line, str) else line
        text = line.text + (f" {hex(start + 16 * (i - line.back))}" if line.back else "")
        control = line.stall << 41 | line.writes << 46 | line.reads << 49 | line.waits << 52
        out.append(f"        /*{start + 16 * i:04x}*/  {text} ;  /* 0x{0:016x} */\n"
                   f"                              /* 0x{control:016x} */")
    return "\n".join(out)


def code(*lines):
    return instructions(sass(lines))


def test_control_words_are_read():
    [one] = code(Line("@!P0 MUFU.TANH R1, R2", stall=5, writes=2, reads=3, waits=0b101))
    assert (one.kind, one.predicate, one.operands) == ("MUFU", "@!P0", "R1, R2")
    assert (one.stall, one.write_barrier, one.read_barrier, one.waits) == (5, 2, 3, 0b101)


@pytest.mark.parametrize("line,warps,cycles", [
    (Line("FFMA R1, R1, R1, R1"), 4, 10),  # one a cycle
    (Line("FFMA R1, R1, R1, R1", stall=4), 4, 40),  # one warp waits as its control words say
    (Line("FFMA R1, R1, R1, R1", stall=4), 8, 41),  # a second warp on its sub-partition fills the gaps
    (Line("IADD3 R1, R1, R1, RZ"), 4, 19),  # 9 times 2 cycles of the ALU, and the last one's issue
    (Line("MUFU.TANH R1, R1"), 4, 73),  # 9 times 8 cycles of the special functions, and the last one's issue
    (Line("MUFU.TANH R1, R1"), 8, 153),  # two warps share them
])
def test_ten_of_a_kind(line, warps, cycles):
    assert cycles_once(code(*[line] * 10), warps) == cycles


@pytest.mark.parametrize("first,cycles", [
    ("MUFU.TANH R1, R2", 22),
    ("LDS R1, [R2]", 30 + 4 * 1),  # four warps' 128 bytes, 128 a cycle
    ("LDG.E.64 R4, desc[UR6][R2.64]", 300 + 4 * 32 / 24),  # a bias: a sector a warp, 24 bytes a cycle
    ("LDG.E.128 R4, desc[UR6][R2.64]", 300 + 4 * 512 / 24),
])
def test_a_result_is_waited_for(first, cycles):
    """The second instruction waits for the first one's scoreboard; four warps share memory's widths."""
    waiting = code(Line(first, writes=0), Line("FFMA R1, R1, R1, R1", waits=1))
    assert cycles_once(waiting, 4) == pytest.approx(cycles + 1, abs=0.01)
    assert cycles_once(code(Line(first, writes=0), "FFMA R1, R1, R1, R1"), 4) == 2


@pytest.mark.parametrize("product,cycles", [
    (UP, (32 * 16 + 64 * 16) * 2 / 128),  # both operands, at 128 bytes a cycle of shared memory
    ("HGMMA.64x256x16.F32.BF16 R24, R152, gdesc[UR4], R24", 2 * 64 * 256 * 16 / 4096),  # the tensor cores
])
def test_a_product(product, cycles):
    """Four warps, and two warp groups that share the tensor cores; the result is visible 30 cycles later."""
    lines = code(product + ", gsb0", WAIT)
    assert cycles_once(lines, 4) == cycles + 30 + 1
    assert cycles_once(lines, 8) == 2 * cycles + 30 + 1


def test_a_serialised_product_costs_more():
    """A wait after each product, or one after all; special functions after or beside them. A second warp
    group's products fill only some of the waits."""
    serial, together = code(*[UP + ", gsb0", WAIT] * 8), code(*[UP] * 7, UP + ", gsb0", WAIT)
    assert cycles_a_trip(serial, 4) >= cycles_a_trip(together, 4) + 7 * 30
    assert cycles_a_trip(together, 8) < cycles_a_trip(serial, 8) < 2 * cycles_a_trip(serial, 4)
    special = [Line("MUFU.TANH R1, R1")] * 24
    behind = cycles_a_trip(code(*[UP] * 7, UP + ", gsb0", WAIT, *special), 4)
    beside = cycles_a_trip(code(*[UP] * 7, UP + ", gsb0", *special, WAIT), 4)
    assert behind == pytest.approx(beside + 24 * 8, abs=10)


def test_barriers():
    """Special functions delay warps 4 to 7 by 8 cycles. A barrier of 128 threads is for a warp group, one
    without a number for all warps."""
    def cycles(barrier):
        return cycles_once(code("MUFU.TANH R1, R1", barrier, "FFMA R1, R1, R1, R1"), 8)

    assert cycles("BAR.SYNC.DEFER_BLOCKING 0x1, 0x80") == 10 + 20 + 1
    assert cycles("BAR.SYNC.DEFER_BLOCKING 0x0") == 10 + 20 + 2  # the two groups issue one after the other
    with pytest.raises(RuntimeError, match="for ever"):  # 3 warps of 4
        cycles_once(code("BAR.SYNC.DEFER_BLOCKING 0x0, 0x60", "FFMA R1, R1, R1, R1"), 4)


@pytest.mark.parametrize("slots,cycles", [(4, 200), (1, 503)])
def test_a_ring_of_weights(slots, cycles):
    """4,800 bytes a trip take 200 cycles of L2. A single slot adds its latency of 300 to every trip, and the
    three cycles in which a sub-partition's slower warp returns it."""
    lines = code("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R1], R2", "SYNCS.ARRIVE.TRANS64.A1T0 RZ, [R3], RZ")
    assert cycles_a_trip(lines, 8, Ring(slots, 4800, (0,))) == pytest.approx(cycles)


SHAPE = cycle_model.Shape(hidden=64, blocks=2, latent=3, head=0, chunk=32, slots=0)


def network(serialised: bool = False, forwards=None):
    """The loops of a portable kernel's step: the input layer's rows with the entries of z inside, the blocks
    forwards, the blocks back. SHAPE's chunks take 4 instructions an up product, 2 a down one."""
    def product(line, count):
        last = [line + ", gsb0", WAIT]
        return [*([line + ", gsb0", WAIT] if serialised else [line]) * (count - 1), *last]

    def loop(*body):
        return [*body, Line("@P0 BRA", back=len(body))]

    special = ["MUFU.TANH R1, R1"] * 16
    rows = loop("LDG.E.128 R4, desc[UR6][R2.64]", *loop("FFMA R1, R1, R1, R1"))
    forwards = loop(*(forwards or loop(*product(UP, 4), *special, *product(DOWN, 2))))
    back = loop(*loop(*product(UP, 4), *product(UP, 4), *special, *product(DOWN, 2)))
    step = loop(*rows, *forwards, *back)
    return loop("NOP", *step)


def test_a_kernel():
    """Finds and names loops and multiplies them by their trips; single pipes bound the total from below."""
    listing = instructions(sass(network()))
    step = cycle_model.step_of(listing)
    cycle_model.name_loops(listing, step, SHAPE)
    rows, forwards, back = step.inner
    assert [(rows.what, rows.trips), (rows.inner[0].what, rows.inner[0].trips)] == [
        ("rows", 4), ("entries of z", 3)]
    assert [(one.what, one.trips) for one in (forwards, back)] == [("blocks", 2)] * 2
    chunks = [(one.what, one.trips) for part in (forwards, back) for one in part.inner]
    assert chunks == [("chunks", 8), ("chunks back", 8)]  # 256 columns, 32 at a time
    row = cycle_model.predict(sass(network()), SHAPE, 8, 960.0)
    # Five products of [128, 64] with [64, 32]; 2 times 16 special functions of 8 warps, 2 cycles each.
    assert row["at_least"]["tensor"] == round(2 * 8 * 5 * 2 * 128 * 64 * 32 / 4096 / 1000, 1)
    assert row["at_least"]["special"] == round(2 * 8 * 2 * 16 * 8 * 2 / 1000, 1)
    assert row["at_least"]["l2"] == round(960 * 128 / 24 / 1000, 1)
    assert row["total"] == pytest.approx(sum(row["parts"].values()), abs=0.3)
    assert row["parts"]["chunks back"] > row["parts"]["chunks"] > 0
    assert row["total"] > max(row["at_least"][pipe] for pipe in ("tensor", "special", "issue"))


def test_a_prediction_is_the_listings_alone():
    """Equal code costs the same at any address; a wait after each product costs more."""
    first = cycle_model.predict(sass(network()), SHAPE, 8, 960.0)
    assert cycle_model.predict(sass(network()), SHAPE, 8, 960.0) == first
    assert cycle_model.predict(sass(network(), start=0x4000), SHAPE, 8, 960.0) == first
    alone, serialised = (cycle_model.predict(sass(network(one)), SHAPE, 4, 960.0) for one in (False, True))
    assert serialised["at_least"]["tensor"] == alone["at_least"]["tensor"]
    for part in ("chunks", "chunks back"):
        assert serialised["parts"][part] > 1.2 * alone["parts"][part]


def test_a_listing_without_products():
    with pytest.raises(ValueError, match="no loop over matrix products"):
        cycle_model.predict(sass(["NOP", Line("@P0 BRA", back=1)]), SHAPE, 8, 0.0)


def test_a_loop_taken_for_another_is_an_error():
    """A `joint` network passed off as one with the early head, whose products the listing lacks."""
    with pytest.raises(ValueError, match="multiply for"):
        cycle_model.predict(sass(network()), replace(SHAPE, head=256), 8, 960.0)


def test_asking_an_mbarrier_again_is_no_loop():
    asking = ["SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R1], R2", Line("@!P0 BRA", back=1)]
    other = ["FFMA R1, R1, R1, R1", Line("@!P0 BRA", back=1)]
    assert not cycle_model.nest(code("NOP", *asking, "NOP")).inner
    assert len(cycle_model.nest(code("NOP", *other, "NOP")).inner) == 1


def test_a_way_back_over_the_end_is_no_loop():
    """A loop may end in an unconditional branch; so does code moved behind the end, on its return."""
    way = ["NOP", "FFMA R1, R1, R1, R1", Line("BRA", back=2)]
    assert [(loop.first, loop.last) for loop in cycle_model.nest(code(*way, "EXIT")).inner] == [(0, 2)]
    assert not cycle_model.nest(code(*way[:2], "EXIT", Line("BRA", back=2))).inner


def test_unrolled_chunks():
    """Blocks with unrolled loops over chunks still count as blocks."""
    chunk = [*[UP] * 3, UP + ", gsb0", WAIT, *["MUFU.TANH R1, R1"] * 16, DOWN, DOWN + ", gsb0", WAIT]
    lines = network(forwards=[*chunk * 8])
    row = cycle_model.predict(sass(lines), SHAPE, 8, 960.0)
    plain = cycle_model.predict(sass(network()), SHAPE, 8, 960.0)
    assert row["at_least"]["tensor"] == plain["at_least"]["tensor"]
    assert "chunks" not in row["parts"] and row["parts"]["blocks"] > row["parts"]["chunks back"] / 2


@pytest.mark.parametrize("hidden,blocks,head,guided", [
    (256, 3, 0, True), (256, 3, 256, True), (128, 4, 256, True), (128, 3, 0, False)])
def test_both_designs_stream_the_same_weights(hidden, blocks, head, guided):
    """Once a tile of 128 in the portable kernel, once a pair of tiles of 64 in Gluon. Gluon moves less
    scratch: x of the blocks before the last one that goes back, out and in, in half-filled sectors."""
    sizes = {"head_width": head, "guided": guided}
    portable = bytes_per_candidate(hidden, blocks, 128, **sizes)
    ours = gluon_bytes_per_candidate(hidden, blocks, 64, **sizes)
    passes = blocks + (2 if head else blocks) * guided  # of `up` and `down`, [4 H, H] in bf16
    assert portable["weights"] == (passes * 2 * 4 * hidden**2 + head * hidden) * 2 / 128
    # Gluon adds a chunk of 64 rows for the input layer, the read-out and the backward pass to z.
    assert ours["weights"] == portable["weights"] + (2 + guided) * 64 * hidden * 2 / 128
    kept = (1 if head else blocks - 1) * guided
    assert ours["scratch"] == kept * 2 * (2 * hidden) * 2 + (head > 0) * guided * 2 * 4 * hidden
    assert ours["scratch"] < portable["scratch"] / 4
