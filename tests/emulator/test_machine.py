"""The emulator: it refuses instructions without a model, finds faults, and computes the same as numpy."""

from __future__ import annotations

import pytest
import torch
from conftest import relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator import Kernel, MachineError, Unsupported
from emulator.compiling import compile_kernel

pytestmark = pytest.mark.slow

SCHEDULES = ((0, "issue"), (1, "late"), (2, "random"))
# 64 threads; rd1 is a buffer, r1 the thread, rd3 its word of the buffer, r4 its word of shared memory.
PTX = """.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry k(.param .u64 k_param_0) .reqntid 64
{ .reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<9>;
ld.param.b64 %rd1, [k_param_0];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
mov.b32 %r2, global_smem;
shl.b32 %r3, %r1, 2;
add.s32 %r4, %r2, %r3;
shr.u32 %r5, %r1, 5;
setp.eq.b32 %p1, %r5, 0;
setp.lt.u32 %p2, %r1, 7;
BODY
ret; }"""
SWAP = (
    "st.shared.b32 [%r4], %r1; BARRIER xor.b32 %r6, %r3, 128; add.s32 %r6, %r6, %r2; "
    "ld.shared.b32 %r7, [%r6]; st.global.b32 [%rd3], %r7;"
)
COPY = (
    "mov.b32 %r6, 4; cp.async.ca.shared.global [ %r4 + 0 ], [ %rd3 + 0 ], 0x4, %r6; "
    "cp.async.commit_group; WAIT ld.shared.b32 %r7, [%r4];"
)


def run(body: str) -> tuple[torch.Tensor, list]:
    kernel = Kernel(PTX.replace("BODY", body), 1024)
    races = []
    for seed, asynchronous in SCHEDULES:
        words = torch.arange(64, dtype=torch.int32)
        races += kernel((1,), words, seed=seed, asynchronous=asynchronous).races
    return words, races


@pytest.mark.parametrize(
    "body",
    [
        "frobnicate.b32 %r1, %r2;",
        "atom.global.add.u32 %r6, [%rd3], %r1;",
        "add.rz.f32 %r6, %r1, %r2;",
        "tcgen05.wait::ld.sync.aligned;",
        "ld.global.volatile.b32 %r6, [%rd3];",
        "st.local.b32 [%rd3], %r1;",
    ],
)
def test_what_is_not_modelled_is_refused(body):
    with pytest.raises(Unsupported):
        run(body)


@pytest.mark.parametrize(
    "body,words",
    [
        ("@%p2 bra X; add.s32 %r6, %r1, %r1; X:", "divergent"),
        ("ld.global.b32 %r6, [%rd3+256];", "outside every buffer"),
        ("ld.global.v2.b32 {%r6, %r7}, [%rd3];", "misaligned"),
        ("st.shared.b32 [%r4+4096], %r1;", "outside"),
        ("@!%p1 bra X; bar.sync 0; X:", "deadlock|threads"),
        ("mbarrier.arrive.shared::cta.b64 _, [%r4];", "no mbarrier"),
    ],
)
def test_what_no_gpu_would_allow_is_an_error(body, words):
    with pytest.raises(MachineError, match=words):
        run(body)


@pytest.mark.parametrize("offset", [
    "mov.b32 %r6, 65536; mul.lo.s32 %r6, %r6, %r6; cvt.s64.s32 %rd4, %r6;",  # 2^32 wraps to 0
    "mov.b32 %r6, -8; mul.wide.s32 %rd4, %r6, 4; add.s64 %rd4, %rd4, 32;",
    "mov.b32 %r6, 2147483647; add.s32 %r6, %r6, 1; cvt.s64.s32 %rd4, %r6; add.s64 %rd4, %rd4, 2147483648;",
    "mov.b32 %r6, -2147483648; cvt.u64.u32 %rd4, %r6; sub.s64 %rd4, %rd4, 2147483648;",
    "mov.b32 %r6, 1073741824; mov.b64 %rd5, -4294967296; mad.wide.s32 %rd4, %r6, 4, %rd5;"])
def test_addresses_wrap_as_on_a_gpu(offset):
    """Products and sums of 32 bits wrap, wide ones do not, and a sign is extended only where it is one."""
    words, races = run(offset + "add.s64 %rd4, %rd4, %rd3; add.s32 %r7, %r1, 5; st.global.b32 [%rd4], %r7;")
    assert not races and torch.equal(words, torch.arange(64, dtype=torch.int32) + 5)


@pytest.mark.parametrize("offset", [
    "mov.b32 %r6, 2147483647; add.s32 %r6, %r6, 1; cvt.s64.s32 %rd4, %r6;",
    "mov.b32 %r6, -4; cvt.u64.u32 %rd4, %r6;",
    "mov.b32 %r6, 65536; mul.wide.s32 %rd4, %r6, 65536;"])
def test_an_offset_beyond_32_bits_is_outside(offset):
    """What wraps to a negative offset, and what does not wrap, leaves the buffer and is an error."""
    with pytest.raises(MachineError, match="outside every buffer"):
        run(offset + "add.s64 %rd4, %rd4, %rd3; ld.global.b32 %r7, [%rd4];")


@pytest.mark.parametrize(
    "body",
    [
        SWAP.replace("BARRIER", ""),
        COPY.replace("WAIT", ""),
        "st.global.b32 [%rd3], %r1; xor.b32 %r6, %r1, 32; mul.wide.u32 %rd4, %r6, 4; "
        "add.s64 %rd4, %rd4, %rd1; ld.global.b32 %r7, [%rd4];",
    ],
    ids=["shared", "cp.async", "global"],
)
def test_races_are_seen(body):
    assert run(body)[1]


def test_what_is_ordered_is_no_race():
    words, races = run(SWAP.replace("BARRIER", "bar.sync 0;"))
    assert not races
    assert torch.equal(words, torch.arange(64, dtype=torch.int32) ^ 32)
    assert not run(COPY.replace("WAIT", "cp.async.wait_group 0;"))[1]


def emulate(name, types, constants, capability, warps, stages, grid, tensors, numbers=()):
    """The last of ``tensors``, the outputs, under all schedules; checks for no races and equal bits."""
    compiled = compile_kernel("emulator.small_kernels", name, types, constants, capability, warps, stages)
    kernel, outputs = Kernel(compiled.ptx, compiled.shared), []
    for seed, asynchronous in SCHEDULES:
        *inputs, out = tensors
        out = torch.full_like(out, torch.nan)
        result = kernel(
            grid, *inputs, out, *numbers, seed=seed, asynchronous=asynchronous, readonly=tuple(inputs)
        )
        assert not result.races, result.races[0]
        outputs.append(out)
    assert all(torch.equal(outputs[0], other) for other in outputs)
    return outputs[0], result


@pytest.mark.parametrize("capability", [80, 90])
def test_sums_and_softmax(capability):
    x, y = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    out, _ = emulate(
        "add",
        {"x": "*fp32", "y": "*fp32", "z": "*fp32", "n": "i32"},
        {"B": 256},
        capability,
        4,
        2,
        (4,),
        (x, y, x),
        (1000,),
    )
    assert torch.equal(out, x + y)
    types, x = {"x": "*fp32", "y": "*fp32"}, x[:992].reshape(-1, 62)[:, :32].reshape(8, 64).contiguous()
    out, _ = emulate("softmax", types, {"R": 8, "C": 64}, capability, 4, 2, (1,), (x, x))
    assert relative_error(out, x.double().softmax(1)) < 1e-6
    out, _ = emulate("column_sums", types, {"R": 8, "C": 64}, capability, 8, 2, (1,), (x, x[0]))
    assert relative_error(out, x.double().sum(0)) < 1e-6


@pytest.mark.parametrize(
    "capability,dtype,M,N,K,BK,stages,warps,transposed",
    [
        (80, "bf16", 64, 64, 256, 32, 2, 4, True),
        (80, "bf16", 16, 16, 64, 32, 2, 4, False),
        (80, "tf32", 64, 32, 64, 32, 3, 4, False),
        (90, "bf16", 64, 64, 256, 32, 3, 4, False),
        (90, "bf16", 128, 128, 128, 64, 3, 8, True),
        (90, "bf16", 64, 16, 64, 16, 1, 4, True),
        (90, "fp16", 64, 64, 64, 64, 1, 4, True),
        (90, "tf32", 128, 32, 64, 16, 2, 8, True),
        (90, "fp32", 64, 32, 64, 32, 1, 4, False),
    ],
)
def test_products(capability, dtype, M, N, K, BK, stages, warps, transposed):
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32)
    word = dtype if kind != torch.float32 else "fp32"
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(M, K, generator=generator).to(kind), torch.randn(K, N, generator=generator).to(kind)
    out, result = emulate(
        "product",
        {"a": "*" + word, "b": "*" + word, "c": "*fp32"},
        {
            "M": M,
            "N": N,
            "K": K,
            "BK": BK,
            "TRANSPOSED": transposed,
            "PRECISION": "tf32" if dtype == "tf32" else "ieee",
        },
        capability,
        warps,
        stages,
        (1,),
        (a, b.T.contiguous() if transposed else b, torch.empty(M, N)),
    )
    wanted = "wg_mma" if capability == 90 else f"mma_{dtype}"
    assert (wanted in result.operations) is (dtype != "fp32")
    if dtype == "tf32":  # the tensor core drops the low 13 bits
        a, b = ((t.view(torch.int32) & -8192).view(torch.float32) for t in (a, b.contiguous()))
    assert relative_error(out, a.double() @ b.double()) < 3e-6
