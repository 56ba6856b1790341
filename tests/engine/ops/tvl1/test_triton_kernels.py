"""The kernels compile for real GPUs, with the compiler that Triton carries: what the interpreter cannot show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
LEAST_SHARED = 99 * 1024
"""Bytes of shared memory that a program may use on every GPU from compute capability 8.0 on."""
REGISTERS = 65536
"""Of a multiprocessor, on every such GPU."""

SCRIPT = """
import dataclasses, json, torch
from engine.ops.strain import gpu as strain
from engine.ops.strain import triton_kernels as strain_kernels
from engine.ops.tvl1.tiling import tile
from lab.flow_bench.kernels import Recorder, compiled_for
cuts = {(33, 9): tile((33, 9), largest=128, sides=(2,))}
found = {capability: compiled_for(capability, 1, cuts) for capability in (80, 120)}
others = {}
strain_kernels.magnitude = Recorder(strain_kernels.magnitude, others)
strain.magnitude_batch(torch.zeros(1, 2, 1, 1))
found[120] += [kernel for _, kernel in others.values()]
print(json.dumps({capability: [dataclasses.asdict(kernel) for kernel in kernels] for capability, kernels in found.items()}))
"""


def test_every_launch_compiles_for_the_oldest_and_the_newest_gpus(tmp_path: Path) -> None:
    """A driver that compiles and starts nothing stands for the GPU. Of `relax` the version for patches of 2 x 2 is compiled;
    that for 4 x 4 takes long and is looked at by `python -m lab.flow_bench.kernels`."""
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
        "TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{ROOT}/tools:{ROOT}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"80", "120"}
    assert "magnitude" in {kernel["name"] for kernel in found["120"]}
    for kernels in found.values():
        assert {kernel["name"] for kernel in kernels} - {"magnitude"} == {"smooth", "descend", "expand", "relax"}
        for kernel in kernels:
            assert kernel["local"] == 0, f"{kernel['name']} does not fit into registers"
            assert kernel["shared"] <= LEAST_SHARED
            assert kernel["registers"] * kernel["threads"] <= REGISTERS
        (iterating,) = (kernel["loop"] for kernel in kernels if kernel["name"] == "relax")
        assert iterating["BAR"] <= 4
        assert sum(iterating.values()) <= 55 * 4, "instructions of an iteration of 2 x 2 pixels"
