"""Whether a backend answers as the reference does, and in which precision: the test that each network on a GPU has to pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.types import F32

TOLERANCES = {"float16": 2e-3, "float32": 1e-4}
"""Greatest difference of a probability from the reference's on the CPU, in the order in which they are tried. With the shipped
network's products rounded to half precision, no probability of 442 real maps moves by more than 9e-5 (2e-4 with PyTorch's
autocast) and no label changes; float32 leaves room for sums in another order."""

PROBES = 5

Call = Callable[[F32], F32]


def probes(shape: tuple[int, int, int]) -> F32:
    """Maps of noise [PROBES, *shape]."""
    return np.random.default_rng(0).random((PROBES, *shape), np.float32)


def difference(run: Call, reference: Call, name: str, shape: tuple[int, int, int], precision: str) -> str:
    """How the answers to noise, several maps and one alone, differ from those of the reference, called `name`; nothing where
    they do not."""
    maps = probes(shape)
    worst = max(float(np.abs(run(part) - reference(part)).max()) for part in (maps, maps[:1]))
    if worst <= TOLERANCES[precision]:
        return ""
    return f"its answers differ from {name}'s by {worst:.1e} (allowed {TOLERANCES[precision]:.0e})"
