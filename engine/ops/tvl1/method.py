"""What every TV-L1 backend solves, in numbers: the parameters and the sizes of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """Parameters of the method; the names are the papers', the values were chosen by measurement (docs/performance.md).

    smoothing is the sigma in pixels of the Gaussian laid over both pictures first; tau, lam (lambda) and theta are those of
    the energy, for grey levels 0..255; each of `levels` pictures of the pyramid is `step` times the size of the one below, down
    to `smallest` pixels a side; a level warps `warps` times with `iterations` iterations each, and a median filter of `median`
    pixels a side cleans the flow after each warp.
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
