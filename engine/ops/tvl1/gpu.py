"""TV-L1 on the GPU, many pairs at once. CPU equivalent: reference.solve.

A batch of one size has its buffers and, on a real GPU, its CUDA graph (`engine.ops.graphs`): the dozens of launches of a whole
batch are one. Both are kept for the sizes used last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import BackendError
from engine.ops import device
from engine.ops.tvl1.method import METHOD, Method, gaussian, sizes
from engine.ops.tvl1.tiling import Tiling, tile
from engine.types import F32

if TYPE_CHECKING:
    import torch

    from engine.ops.graphs import Store

MAX_PIXELS = 1 << 23
"""Pixels of a batch that run at once (512 pairs of 128 x 128, 1.1 GB); more are taken in turns."""
MAX_PAIRS = 4096
"""Likewise, for small pictures: a grid's second side ends at 65535."""
KEPT = 8
"""Batches whose buffers are kept."""
BLOCK = 256
"""Pixels of one program of the pyramid's kernels."""
HALVED = 32
"""Pairs from which a batch runs as two halves side by side: while one's last tiles end, the other's take the place."""
ON_CPU = 1 << 16
"""Patches of the largest tile where kernels are interpreted: one program is then the fastest."""


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
    from engine.ops.graphs import room_for

    number, height, width = fixed.shape
    shape, where = (room_for(number), height, width), fixed.device
    return idle().run((shape, method, where), where, lambda: Batch(shape, method, where), lambda batch: batch(fixed, moving))


@lru_cache(maxsize=1)
def idle() -> Store[Batch]:
    """The batches whose buffers are kept."""
    from engine.ops.graphs import Store

    return Store(KEPT)


class Batch:
    """Buffers and launches for up to `pairs` pairs of height x width pixels on one device."""

    def __init__(
        self, shape: tuple[int, int, int], method: Method, where: torch.device, tilings: list[Tiling] | None = None
    ) -> None:
        import torch

        from engine.ops.graphs import Recorded

        if method.median not in (0, 1, 3):
            raise BackendError(f"the GPU's median filter is 3 x 3, not {method.median} x {method.median}")
        pairs, *size = shape
        levels = sizes(size[0], size[1], method)
        tilings = tilings or [_tiling(level, method, pairs, where) for level in levels]
        self.where = where
        self.halves = [
            Part(number, levels, tilings, method, where)
            for number in ((pairs - pairs // 2, pairs // 2) if pairs >= HALVED else (pairs,))
        ]
        self.recorded: Recorded[None] = Recorded(where)
        self.beside = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """[n, H, W] twice, n up to `pairs` -> [n, 2, H, W]."""
        self._fill(fixed, moving)
        self.recorded(self._launch)
        return self._flow(len(fixed))

    def launch(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Queue what a call does, without a graph, for one of the caller's; nothing waits for the GPU or for host memory.

        To be recorded it must have run before; the graph then uses this batch's buffers.
        """
        self._fill(fixed, moving)
        self._launch()
        return self._flow(len(fixed))

    def _fill(self, fixed: torch.Tensor, moving: torch.Tensor) -> None:
        for half, begin in self._parts(len(fixed)):
            for given, pictures in zip(half.given, (fixed, moving), strict=True):
                part = pictures[begin : begin + half.pairs]
                given[: len(part)].copy_(part)

    def _flow(self, number: int) -> torch.Tensor:
        import torch

        return torch.cat([half.result[: number - begin] for half, begin in self._parts(number)])

    def _parts(self, number: int) -> list[tuple[Part, int]]:
        """The halves that hold something of `number` pairs, and which pair each begins with."""
        first, *second = self.halves
        return [(first, 0), *((half, first.pairs) for half in second if number > first.pairs)]

    def _launch(self) -> None:
        import torch

        if self.beside is None or len(self.halves) == 1:
            for half in self.halves:
                half.launch()
            return
        here = torch.cuda.current_stream(self.where)
        self.beside.wait_stream(here)
        self.halves[0].launch()
        with torch.cuda.stream(self.beside):
            self.halves[1].launch()
        here.wait_stream(self.beside)


def _tiling(level: tuple[int, int], method: Method, pairs: int, where: torch.device) -> Tiling:
    import torch

    if where.type != "cuda":
        return tile(level, method, pairs, largest=ON_CPU, sides=(2,))
    return tile(level, method, pairs, processors=torch.cuda.get_device_properties(where).multi_processor_count)


class Part:
    """Buffers of `pairs` pairs and the launches that solve them; `given` holds the pictures, `result` the flow."""

    def __init__(
        self, pairs: int, levels: list[tuple[int, int]], tilings: list[Tiling], method: Method, where: torch.device
    ) -> None:
        import torch

        self.pairs, self.levels, self.tilings, self.method = pairs, levels, tilings, method

        def room(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=where)

        self.weights = torch.from_numpy(gaussian(method.smoothing)).to(where)
        self.given = room(2, pairs, *levels[0])
        self.pictures = [room(2, pairs, *level) for level in levels]
        self.slopes = [room(2, pairs, 2, *level) for level in levels]
        plane = 4 * _fours(levels[0][0]), 4 * _fours(levels[0][1])  # the largest; other levels use a part of it
        self.bright = room(pairs, 4, *plane)
        # Tiles read what their neighbours write, so flow and dual field go from one of two buffers to the other.
        self.flows = room(pairs, 2, *plane), room(pairs, 2, *plane)
        self.duals = room(pairs, 4, *plane), room(pairs, 4, *plane)
        exchanges = sum(1 + method.warps * len(tiling.launches) for tiling in tilings)
        self.result = self.flows[exchanges % 2][:, :, : levels[0][0], : levels[0][1]]

    def launch(self) -> None:
        """Starts every kernel; the flow is in `result` when they have run."""
        self._build()
        flow, other = self.flows
        dual, other_dual = self.duals
        below = (0, 0)
        for number in reversed(range(len(self.levels))):
            for step in steps(self.tilings[number], self.method):
                if step.begin:
                    if step.first:
                        flow, other = other, flow
                    self._expand(number, below, (other, flow), enlarge=step.first)
                self._relax(number, step, (flow, other), (dual, other_dual))
                flow, other = other, flow
                dual, other_dual = other_dual, dual
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

    def _expand(self, number: int, below: tuple[int, int], flows: tuple[torch.Tensor, torch.Tensor], *, enlarge: bool) -> None:
        from engine.ops.tvl1 import triton_kernels as kernels

        method, (height, width) = self.method, self.levels[number]
        kernels.expand[(-(-16 * _fours(height) * _fours(width) // BLOCK), self.pairs)](
            self.pictures[number], self.slopes[number], *flows, self.bright,
            self.pairs, height, width, _fours(width), *below, _fours(below[1]), int(enlarge),
            BOUND=method.lam * method.theta, BLOCK=BLOCK, num_warps=BLOCK // 32, enable_fp_fusion=True,
        )  # fmt: skip

    def _relax(
        self, number: int, step: Step, flows: tuple[torch.Tensor, torch.Tensor], duals: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        from engine.ops.tvl1 import triton_relax as kernels

        cut, method, (height, width) = self.tilings[number], self.method, self.levels[number]
        kernels.relax[(cut.down * cut.across, self.pairs)](
            *flows, *duals, self.bright,
            height, width, _fours(width), cut.rows, cut.columns, cut.halo, cut.down, cut.across,
            step.iterations, int(step.first), int(step.end and method.median > 1), int(step.keep),
            TAU=method.tau, STEEP=method.tau / method.theta,
            PATCH=cut.side, PATCHES=cut.patches, LAST_ROW=(height - 1) % cut.side, LAST_COLUMN=(width - 1) % cut.side,
            num_warps=min(cut.patches // 32, 8), num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip


def _fours(number: int) -> int:
    """Planes are whole fours of values long and high: a patch of 4 x 4 has all its own."""
    return -(-number // 4)


@dataclass(frozen=True)
class Step:
    """One launch of `triton_relax.relax`: how many iterations, and what stands before and after them.

    first: of the level. begin and end: of a warp. keep: the dual field is wanted afterwards.
    """

    iterations: int
    first: bool
    begin: bool
    end: bool
    keep: bool


def steps(tiling: Tiling, method: Method) -> list[Step]:
    """The launches of one level, those of each warp in turn."""
    out = []
    for warp in range(method.warps):
        for number, iterations in enumerate(tiling.launches):
            begin, end = number == 0, number + 1 == len(tiling.launches)
            keep = not (end and warp + 1 == method.warps)
            out.append(Step(iterations, first=begin and warp == 0, begin=begin, end=end, keep=keep))
    return out
