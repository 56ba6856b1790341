"""Where the GPU's kernels run in tests: on the GPU where there is one, else in Triton's interpreter on the CPU.

Triton decides when it is imported whether it interprets, and other libraries import it too: so it is done here, first of all.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from engine.ops import device
from engine.ops.tvl1 import gpu

if device.refusal() is not None and find_spec("triton") is not None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        kernels_of = (
            "ops.tvl1.triton_kernels",
            "ops.tvl1.triton_relax",
            "ops.strain.triton_kernels",
            "recognition.triton_kernels",
        )
        for name in kernels_of:
            import_module(f"engine.{name}")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the "gpu" backend run here; without a GPU its numbers are right and its speed is the interpreter's."""
    gpu.idle.cache_clear()
    if device.refusal() is None:
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if (reason := device.refusal()) is not None:
        pytest.skip(f"Triton cannot run here: {reason}")
