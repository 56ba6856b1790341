"""What every TV-L1 backend solves, in numbers: the parameters and the sizes of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """Parameters of the method; the names are the papers', the values were chosen by measurement (docs/performance.md).

    smoothing is the sigma in pixels of the Gaussian laid over both pictures first; tau, lam (lambda) and theta are those of
    the energy; a level of the pyramid is `step` times the size of the one below; each level warps `warps` times and iterates
    `iterations` times between warps; median is the side in pixels of the median filter laid over the flow before each warp.
    """

    smoothing: float = 0.8
    tau: float = 0.25
    lam: float = 0.15
    theta: float = 0.3
    step: float = 0.5
    levels: int = 3
    smallest: int = 16
    warps: int = 2
    iterations: int = 10
    median: int = 5


METHOD = Method()


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
