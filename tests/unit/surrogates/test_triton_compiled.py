"""The Triton kernels compile for GPUs that are not here, and what they need of one stays within bounds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from autoseg.surrogates import triton_pass

triton = pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "c", "layout"),
    [(80, 21, "contiguous"), (90, 21, "channels_last"), (80, 150, "channels_last"), (90, 150, "contiguous")],
)
def test_compiles_for_gpus_without_spills(capability, c, layout, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in ("forward", "backward"):
        registers, stack = resources(compiled(kernel, capability, c, layout), tmp_path)
        assert stack == 0 and registers <= 72, (kernel, registers, stack)


def compiled(kernel, capability, c, layout, block=None):
    """A kernel for mIoU in the paper's space, bf16, as a launch on sizes divisible by 16 compiles it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from autoseg.surrogates import triton_kernels

    function = getattr(triton_kernels, f"{kernel}_kernel")
    half, single = ("logits", "grad"), ("curves", "sums", "normalizer", "weights")
    pointers = dict.fromkeys(half, "*bf16") | dict.fromkeys(single, "*fp32") | {"maps": "*i8" if c <= 128 else "*i16"}
    structure = triton_pass.Structure(
        everywhere=1, masks=1, maps=2, map_of=(0, 1, 1, 1), at=(2, 0, 1, 3), count=(False, False, False, True), pieces=2
    )
    constants = {**structure.constants, "C": c, "BLOCK": block or triton_pass.block_of(c)}
    ones = ("stride_p", "grad_p") if layout == "contiguous" else ("stride_c", "grad_c")
    constants |= {name: 1 for name in ones if name in function.arg_names}
    odd = ("stride_p", "grad_p") if c % 16 else ()  # of channels-last logits
    signature = {a: "constexpr" if a in constants else pointers.get(a, "i32") for a in function.arg_names}
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, a in enumerate(function.arg_names)
        if signature[a] != "constexpr" and a not in odd
    }
    source = ASTSource(function, signature, constants, divisible)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=triton_pass.OPTIONS)


def resources(kernel, folder):
    """(registers a thread, bytes of stack a thread: what was spilled) of a compiled kernel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this triton comes without cuobjdump")
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    usage = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("REG", "STACK"))
