"""Work on a GPU captured once as a CUDA graph and replayed: launching some thousand small kernels costs more than running them.

The work reads and writes the same tensors at every call, asks the host for nothing, and draws from PyTorch's default generator
of the device, which replays follow (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], Tensor]

WARM_UP = 3
"""Calls before the capture, in which libraries choose their kernels and allocate; they change what the work changes."""


def captured(works: list[Work], device: torch.device) -> list[Work]:
    """Each work as a replay of its graph, whose result is valid until the next replay of any; on a CPU the works themselves.

    The graphs share their memory. Raises what PyTorch raises where the device fails or its memory is short.
    """
    if device.type != "cuda":
        return works
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for work in works * WARM_UP:
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    pool = torch.cuda.graph_pool_handle()
    return [_replay(work, pool) for work in works]


def _replay(work: Work, pool: Any) -> Work:
    graph = torch.cuda.CUDAGraph()
    here = torch.cuda.current_stream()
    with torch.cuda.stream(here), torch.cuda.graph(graph, pool=pool):  # which leaves its own stream current where it fails
        out = work()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
