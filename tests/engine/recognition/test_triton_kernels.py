"""The kernels compile for real GPUs, with the compiler that Triton carries: what the interpreter cannot show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Driver:
    utils = None

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.start

    def start(self, *given, **named):
        compiled = self.kernel.run(*given, grid=(1,), warmup=True, **named)
        spilled = "ld.local" in compiled.asm["ptx"]
        print(self.kernel.__name__, compiled.metadata.shared, spilled)


driver.set_active(Driver())
from engine.recognition import flowmap_gpu, triton_kernels

for name, kernel in list(vars(triton_kernels).items()):
    if isinstance(kernel, JITFunction) and not name.startswith("_"):
        setattr(triton_kernels, name, Compiled(kernel))

crops, flow, mesh = torch.zeros(1, 128, 128), torch.zeros(1, 2, 128, 128), torch.zeros(1, 478, 3)
table = flowmap_gpu.tables_on("five-regions", torch.device("cpu"))
flowmap_gpu.matched(crops, crops, table)
flowmap_gpu.explained(crops, crops, flow)
flowmap_gpu.take_out_head(flow, mesh, table)
flowmap_gpu.read_out("five-regions", torch.zeros(1, 3, 28, 28), mesh, table)
"""


def test_every_launch_compiles_for_a_gpu(tmp_path: Path) -> None:
    """A driver that compiles and starts nothing stands for the GPU."""
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    launches = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, *_ in launches} == {"match", "compare", "fit", "place", "subtract", "read"}
    assert max(int(shared) for _, shared, _ in launches) <= 1024, "bytes: nothing but what sums pass on"
    assert {spilled for *_, spilled in launches} == {"False"}
