"""When machine code is made, and what happens where none can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import numpy as np
from engine import kernels
from engine.registration.head import CANVAS, fit_head, head_design
from engine.registration.patches import Patches
from engine.registration.warp import warp
rng = np.random.default_rng(0)
picture = rng.integers(0, 255, (200, 200), np.uint8)
canvas = warp(picture, np.eye(2, 3))
places = rng.uniform(30, 130, (9, 2))
moved, found = Patches(canvas, np.full((478, 2), -99.0), places).find(canvas, np.zeros((9, 2)))
fit_head(head_design(places, np.zeros(9)), moved, found, slice(0, 9))
print(canvas.shape == (CANVAS, CANVAS), found.sum(), abs(moved).max() < 0.01, kernels.machine_code(), kernels.refusal())
"""


@pytest.mark.parametrize(("missing", "environment"), [(["numba"], {}), ([], {"NUMBA_DISABLE_JIT": "1"})])
def test_without_numba_the_twins_answer(missing: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", SCRIPT, *missing]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    assert done.stdout.startswith("True 9.0 True None numba")
    assert "pip install" in done.stdout or "NUMBA_DISABLE_JIT" in done.stdout


def test_numba_is_not_loaded_before_it_is_needed() -> None:
    script = "import sys, engine.registration.align, engine.spotting.spotter; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_pipeline_has_its_machine_code_ready() -> None:
    script = """
from engine import Pipeline, kernels
Pipeline.from_config().close()
print(kernels.machine_code.cache_info().currsize)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


SUMS = """
import hashlib
import numpy as np
from engine.registration.head import fit_head, head_design
from engine.registration.patches import Patches
from engine.registration.warp import warp
rng = np.random.default_rng(0)
canvas = warp(rng.integers(0, 255, (60, 60), np.uint8), np.array([[3, 0.2, 4], [-0.2, 3, 5]]))
places = rng.uniform(30, 130, (70, 2))
moved, found = Patches(canvas, np.full((478, 2), 60.0), places).find(np.roll(canvas, 1, axis=1), np.zeros((70, 2)))
head = fit_head(head_design(places, rng.normal(0, 20, 70)), moved, found, slice(0, 30))
print(hashlib.sha256(canvas.tobytes() + moved.tobytes() + head.terms.tobytes()).hexdigest())
"""


def test_code_from_the_disk_gives_the_same_to_the_last_bit(tmp_path: Path) -> None:
    """Whatever is compiled of a function's parts on the way; events must not hang on whether a machine has run before."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SUMS]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout for _ in range(2)]
    assert any(tmp_path.rglob("*.nbc")) and len(runs[0]) > 60
    assert runs[0] == runs[1]
