"""TV-L1 on the GPU, many pairs at once. CPU equivalent: reference.solve.

A batch of one size has its buffers and, on a real GPU, its CUDA graph: the some twenty launches of a whole batch are one. Both
are kept for the sizes used last. A caller takes a batch's buffers out of the store while it uses them, so two callers never
share one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import BackendError
from engine.ops import device
from engine.ops.tvl1.method import METHOD, Method, gaussian, sizes
from engine.ops.tvl1.tiling import CELLS, Tiling, tile
from engine.types import F32

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 1 << 23
"""Pixels of a batch that run at once (512 pairs of 128 x 128, 0.9 GB); more are taken in turns."""
MAX_PAIRS = 4096
"""Likewise, for small pictures: a grid's second side ends at 65535."""
KEPT = 8
"""Batches whose buffers are kept."""
BLOCK = 512
"""Pixels of one program of the pyramid's kernels."""

_idle: OrderedDict[tuple[Any, ...], Batch] = OrderedDict()


def refusal() -> str | None:
    """Why TV-L1 cannot run on a GPU here, None when it can."""
    return device.refusal()


def solve_arrays(fixed: F32, moving: F32, method: Method = METHOD) -> F32:
    """`solve_batch` for numpy arrays [N, H, W] -> [N, 2, H, W]."""
    with device.translated(f"TV-L1 of {fixed.shape}"):
        import torch

        there = device.current_device()
        flow = solve_batch(torch.from_numpy(fixed).to(there), torch.from_numpy(moving).to(there), method)
        return np.asarray(flow.cpu().numpy(), np.float32)


def solve_batch(fixed: torch.Tensor, moving: torch.Tensor, method: Method = METHOD) -> torch.Tensor:
    """[N, H, W] float32 in 0..255 on the GPU, twice -> [N, 2, H, W] float32 (u, v) in pixels, there.

    Raises BackendError for a GPU that fails.
    """
    import torch

    with device.translated(f"TV-L1 of {tuple(fixed.shape)}"):
        at_once = min(MAX_PAIRS, max(1, MAX_PIXELS // (fixed.shape[1] * fixed.shape[2])))
        flows = [_run(f, m, method) for f, m in zip(torch.split(fixed, at_once), torch.split(moving, at_once), strict=True)]
        return flows[0] if len(flows) == 1 else torch.cat(flows)


def _run(fixed: torch.Tensor, moving: torch.Tensor, method: Method) -> torch.Tensor:
    number, height, width = fixed.shape
    room = 1 << (number - 1).bit_length()  # sizes that are powers of two: few graphs serve batches of any length
    shape = room, height, width
    key = (shape, method, fixed.device)
    batch = _idle.pop(key, None) or _made(shape, method, fixed.device)
    flow = batch(fixed, moving)
    _idle[key] = batch
    while len(_idle) > KEPT:
        _idle.popitem(last=False)
    return flow


def _made(shape: tuple[int, int, int], method: Method, where: torch.device) -> Batch:
    """New buffers; where they find no room, the idle ones make it."""
    import torch

    try:
        return Batch(shape, method, where)
    except torch.OutOfMemoryError:
        _idle.clear()
        return Batch(shape, method, where)


class Batch:
    """Buffers and launches for (pairs, height, width) on one device."""

    def __init__(self, shape: tuple[int, int, int], method: Method, where: torch.device, cells: int = CELLS) -> None:
        import torch

        if method.median not in (0, 1, 3):
            raise BackendError(f"the GPU's median filter is 3 x 3, not {method.median} x {method.median}")
        pairs, height, width = shape
        self.pairs, self.method, self.where = pairs, method, where
        self.levels = sizes(height, width, method)
        self.tilings = [tile(h, w, method.iterations, method.median > 1, cells) for h, w in self.levels]

        def room(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=where)

        self.weights = torch.from_numpy(gaussian(method.smoothing)).to(where)
        self.given = room(2, pairs, height, width)
        self.pictures = [room(2, pairs, h, w) for h, w in self.levels]
        self.slopes = [room(2, pairs, 2, h, w) for h, w in self.levels]
        between = max((h * w for (h, w), t in zip(self.levels, self.tilings, strict=True) if not t.whole), default=0)
        self.bright = room(pairs * 3 * between)
        # Tiles read what their neighbours write, so flow and dual field go from one of two buffers to the other.
        self.flow, self.other_flow = room(pairs, 2, height, width), room(pairs, 2, height, width)
        self.dual, self.other_dual = room(pairs * 4 * between), room(pairs * 4 * between)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.done = torch.cuda.Event() if where.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """[n, H, W] twice, n up to `pairs` -> [n, 2, H, W]."""
        if self.done:
            self.done.wait()  # another stream may have used the buffers last
        self.given[0, : len(fixed)].copy_(fixed)
        self.given[1, : len(moving)].copy_(moving)
        if self.where.type == "cuda":
            self._replay()
        else:
            self._launch()
        flow = self.flow[: len(fixed)].clone()
        if self.done:
            self.done.record()
        return flow

    def launch(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Queue copies and launches for `pairs` pairs [pairs, H, W] without a graph, for one of the caller's.

        Returns the buffer where the flow will be. To be recorded it must have run before; the graph is of this batch's buffers.
        """
        self.given[0].copy_(fixed)
        self.given[1].copy_(moving)
        self._launch()
        return self.flow

    def _replay(self) -> None:
        import torch

        with torch.cuda.device(self.where):
            if self.graph is None:
                self._launch()  # compiles, which a capture may not
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._launch()
                self.graph = graph
            self.graph.replay()

    def _launch(self) -> None:
        self._build()
        below = (0, 0)
        for number in reversed(range(len(self.levels))):
            for step in steps(self.tilings[number], self.method):
                self._relax(number, below, step)
            below = self.levels[number]

    def _build(self) -> None:
        """The pyramid and its derivatives."""
        from engine.ops.tvl1 import triton_kernels as kernels

        count = 2 * self.pairs
        for number, (height, width) in enumerate(self.levels):
            grid = (-(-height * width // BLOCK), count)
            picture = self.pictures[number]
            if number == 0:
                reach = len(self.weights) // 2
                kernels.smooth[grid](self.given, picture, self.weights, height, width, reach, BLOCK, enable_fp_fusion=True)
            shrink = number + 1 < len(self.levels)
            following, size = (self.pictures[number + 1], self.levels[number + 1]) if shrink else (picture, (0, 0))
            kernels.descend[grid](
                picture, self.slopes[number], following, height, width, *size, shrink, BLOCK, enable_fp_fusion=True
            )

    def _relax(self, number: int, below: tuple[int, int], step: Step) -> None:
        from engine.ops.tvl1 import triton_kernels as kernels

        tiling, method = self.tilings[number], self.method
        kernels.relax[(tiling.down * tiling.across, self.pairs)](
            self.pictures[number], self.slopes[number], self.flow, self.other_flow, self.dual, self.other_dual, self.bright,
            self.pairs, *self.levels[number], *below, tiling.across, step.iterations,
            TAU=method.tau, STEEP=method.tau / method.theta, BOUND=method.lam * method.theta,
            WARPS=step.warps, BEGIN=step.begin, ENLARGE=step.first, FRESH=step.first, END=step.end, KEEP=step.keep,
            MEDIAN=method.median > 1, HALO=tiling.halo, ROWS=tiling.rows, COLUMNS=tiling.columns, CELLS=tiling.cells,
            num_warps=max(1, min(16, tiling.cells // 128)), enable_fp_fusion=True,
        )  # fmt: skip
        self.flow, self.other_flow = self.other_flow, self.flow
        self.dual, self.other_dual = self.other_dual, self.dual


@dataclass(frozen=True)
class Step:
    """One launch of `kernels.relax`: how many iterations, of how many warps, and what stands before and after them."""

    iterations: int
    warps: int
    first: bool
    begin: bool
    end: bool
    keep: bool


def steps(tiling: Tiling, method: Method) -> list[Step]:
    """The launches of one level: one for a level of one tile, else those of each warp in turn."""
    if tiling.whole:
        return [Step(method.iterations, method.warps, first=True, begin=True, end=True, keep=False)]
    out = []
    for warp in range(method.warps):
        for number, iterations in enumerate(tiling.launches):
            begin, end = number == 0, number + 1 == len(tiling.launches)
            keep = not (end and warp + 1 == method.warps)
            out.append(Step(iterations, 1, first=begin and warp == 0, begin=begin, end=end, keep=keep))
    return out
