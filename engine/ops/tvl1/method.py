"""What every TV-L1 backend solves, in numbers: the parameters and the sizes of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.types import F32


@dataclass(frozen=True)
class Method:
    """Parameters of the method; the names are the papers', the values were chosen by measurement (docs/performance.md).

    smoothing is the sigma in pixels of the Gaussian laid over both pictures first; tau, lam (lambda) and theta are those of
    the energy, for grey levels 0..255; each of `levels` pictures of the pyramid is `step` times the size of the one below, down
    to `smallest` pixels a side; a level warps `warps` times with up to `iterations` iterations each, and a median filter of
    `median` pixels a side (3, or 1 for none) cleans the flow after each warp. Iterations end early once one changes the flow by
    less than `settled` pixels (root mean square over the level). A flow that is known to be near is refined on the `refined`
    finest levels.
    """

    smoothing: float = 0.5
    tau: float = 0.25
    lam: float = 0.18
    theta: float = 0.15
    step: float = 0.7
    levels: int = 5
    smallest: int = 16
    warps: int = 2
    iterations: int = 20
    median: int = 3
    settled: float = 0.005
    refined: int = 2


METHOD = Method()
CUBIC = -0.75
"""The free parameter of Keys' cubic interpolation, as OpenCV has it."""


def sizes(height: int, width: int, method: Method = METHOD) -> list[tuple[int, int]]:
    """(height, width) of each level, the picture itself first; no level but the first has a side under `smallest` pixels."""
    out = [(height, width)]
    while len(out) < method.levels:
        last = out[-1]
        following = (round(last[0] * method.step), round(last[1] * method.step))
        if min(following) < method.smallest:
            break
        out.append(following)
    return out


def beginning(levels: list[tuple[int, int]], start: F32 | None, method: Method = METHOD) -> tuple[list[tuple[int, int]], F32]:
    """The levels to solve, the finest first, and the flow [2, h, w] to begin with: nothing on the coarsest, or a known flow."""
    if start is None:
        return levels, np.zeros((2, *levels[-1]), np.float32)
    return levels[: method.refined], np.array(start, np.float32, order="C")


def gaussian(sigma: float) -> F32:
    """The weights of a Gaussian cut off at 3 sigma, an odd number of them that adds up to 1."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2)
    return np.asarray(kernel / kernel.sum(), np.float32)
