"""The kernels compile for real GPUs, with the compiler that Triton carries: what the interpreter cannot show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.ops.tvl1.tiling import CELLS

ROOT = Path(__file__).resolve().parents[4]
LEAST_SHARED = 99 * 1024
"""Bytes of shared memory that a program may use on every GPU from compute capability 8.0 on."""

SCRIPT = """
import dataclasses
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
        return lambda *given, **named: print(
            self.kernel.__name__, self.kernel.run(*given, grid=grid, warmup=True, **named).metadata.shared
        )


driver.set_active(Driver())
from engine.ops.strain import gpu as strain
from engine.ops.strain import triton_kernels as strain_kernels
from engine.ops.tvl1 import gpu as flow
from engine.ops.tvl1 import triton_kernels as flow_kernels
from engine.ops.tvl1.method import METHOD

for module in (flow_kernels, strain_kernels):
    for name, kernel in list(vars(module).items()):
        if isinstance(kernel, JITFunction) and not name.startswith("_"):
            setattr(module, name, Compiled(kernel))

here = torch.device("cpu")
flow.Batch((1, 1, 1), METHOD, here)._launch()
flow.Batch((2, 33, 32), dataclasses.replace(METHOD, levels=1, warps=1, iterations=9), here, 1024)._launch()
strain.magnitude_batch(torch.zeros(1, 2, 1, 1))
"""


def test_every_launch_compiles_for_a_gpu(tmp_path: Path) -> None:
    """A driver that compiles and starts nothing stands for the GPU. Sizes of 1 are there because Triton treats them apart."""
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    launches = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _ in launches} == {"relax", "smooth", "descend", "magnitude"}
    assert max(int(shared) for _, shared in launches) * CELLS / 1024 <= LEAST_SHARED  # the tiles above hold 1024 pixels
