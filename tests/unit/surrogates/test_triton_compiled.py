"""The Triton kernels compile for GPUs that are not here, and what they need of one stays within bounds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from autoseg.surrogates import triton_pass
from autoseg.surrogates.passes import Pass, Pixels

triton = pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "c", "layout"),
    [
        (80, 21, "contiguous"), (90, 21, "channels_last"), (90, 32, "contiguous"),
        (80, 150, "channels_last"), (90, 150, "contiguous"),
    ],
)  # fmt: skip
def test_compiles_for_gpus_without_spills(capability, c, layout, tmp_path, monkeypatch):
    """Rows of few classes stay in registers, 255 of which a thread can have; of many classes none does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in ("forward", "backward"):
        registers, stack = resources(compiled(kernel, capability, c, layout), tmp_path)
        assert stack == 0 and registers <= (255 if c <= 32 else 72), (kernel, registers, stack)


def compiled(kernel, capability, c, layout):
    """A kernel for mIoU in the paper's space, bf16 and int64, as a launch on sizes divisible by 16 compiles it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    label = torch.zeros((1, 1, 16), dtype=torch.int64)
    pixels, curve, work = Pixels(label, None, c), torch.zeros(2, 6), Pass()
    work.add_own(curve, pixels)
    work.add_everywhere(curve, pixels, pixels)
    work.add_own(None, pixels)
    plan = triton_pass.planned(work, label)
    module, sizes = triton_pass._kernels(plan, torch.zeros(1, c, 16))
    function, s = getattr(module, f"{kernel}_kernel"), plan.structure
    constants = {
        "EVERYWHERE": s.everywhere, "HITS": s.hits, "COUNTS": s.counts, "LABELS": s.labels, "PIECES": s.pieces,
        "C": c, "BINS": max(32, 1 << (c - 1).bit_length()), **sizes,
    }  # fmt: skip
    ones = ("stride_p", "grad_p") if layout == "contiguous" else ("stride_c", "grad_c")
    constants = {a: value for a, value in (constants | dict.fromkeys(ones, 1)).items() if a in function.arg_names}
    pointers = dict.fromkeys(("logits", "grad"), "*bf16") | dict.fromkeys(("sums", "normalizer", "weights"), "*fp32")
    pointers |= {"known": "*u8", "ids": ("*i64",), "within": ("constexpr",), "curves": ("*fp64", "*fp64")}
    signature = {a: "constexpr" if a in constants else pointers.get(a, "i32") for a in function.arg_names}
    odd = {"ignore", *(("stride_p", "grad_p") if c % 16 else ())}  # of channels-last logits
    places = [
        (i, *more)
        for i, (name, kind) in enumerate(signature.items())
        if kind not in ("constexpr", ("constexpr",)) and name not in odd
        for more in ([(j,) for j in range(len(kind))] if isinstance(kind, tuple) else [()])
    ]
    values = {(function.arg_names.index(name),): value for name, value in constants.items()}
    values[function.arg_names.index("within"), 0] = None
    source = ASTSource(function, signature, values, {place: [["tt.divisibility", 16]] for place in places})
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
