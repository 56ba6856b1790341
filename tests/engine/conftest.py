"""Where the GPU's kernels run in tests: on the GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest

from engine.ops import device
from engine.ops.tvl1 import gpu


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the "gpu" backend run here; without a GPU its numbers are right and its speed is the interpreter's."""
    gpu._idle.clear()
    if device.refusal() is None:
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if (reason := device.refusal()) is not None:
        pytest.skip(f"Triton cannot run here: {reason}")
