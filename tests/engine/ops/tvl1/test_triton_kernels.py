"""The kernels compile for real GPUs, with the compiler that Triton carries: what the interpreter cannot show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
LEAST_SHARED = 99 * 1024
"""Bytes of shared memory that a program may use on every GPU from compute capability 8.0 on."""

SCRIPT = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from engine.ops.strain import triton_kernels as strain
from engine.ops.tvl1 import triton_kernels as flow

def built(kernel, constants, warps=4):
    pointers = {"pictures", "slopes", "flow_in", "flow_out", "dual_in", "dual_out", "bright", "source", "target", "following"}
    pointers |= {"flow", "out"}
    types = {n: "constexpr" if n in constants else "*fp32" if n in pointers else "i32" for n in kernel.arg_names}
    source = ASTSource(kernel, types, {(kernel.arg_names.index(n),): value for n, value in constants.items()})
    done = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options={"num_warps": warps})
    assert done.asm["cubin"]
    print(kernel.__name__, done.metadata.shared)

method = dict(TAU=0.25, STEEP=1.6, BOUND=0.03, MEDIAN=True)
one = dict(method, WARPS=2, BEGIN=True, ENLARGE=True, FRESH=True, END=True, KEEP=False, HALO=0)
cut = dict(method, WARPS=1, BEGIN=False, ENLARGE=False, FRESH=False, END=False, KEEP=True, HALO=7)
built(flow.relax, dict(one, ROWS=31, COLUMNS=31, CELLS=1024), 8)
built(flow.relax, dict(cut, ROWS=52, COLUMNS=71, CELLS=4096), 16)
built(flow.smooth, dict(SIGMA=0.5, REACH=2, BLOCK=512))
built(flow.descend, dict(SHRINK=True, BLOCK=512))
built(strain.magnitude, dict(BLOCK=512))
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_a_gpu(capability: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(capability)], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    shared = dict(line.split() for line in done.stdout.splitlines())
    assert set(shared) == {"relax", "smooth", "descend", "magnitude"}
    assert max(map(int, shared.values())) <= LEAST_SHARED
