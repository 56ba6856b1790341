"""A GPU that is this CPU: CUDA graphs recorded and replayed, and the way from crops to inputs by the CPU's functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.geometry import keypoints, keypoints_to_map
from engine.ops import device, graphs
from engine.ops.tvl1 import gpu, tvl1
from engine.recognition import flowmap_gpu
from engine.recognition.flowmap import network_input, whole_map
from engine.recognition.flowmap_gpu import FlowMaps, Moments
from engine.recognition.likeness import explained, like
from engine.recognition.residual import take_out_head


class Graph:
    """In place of `torch.cuda.CUDAGraph`: does the recorded operations again, on and into the same tensors."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """Do all steps again."""
        with torch.no_grad():
            for func, args, kwargs, out in self.steps:
                again = func(*args, **kwargs)
                if not func.is_view and not func._schema.is_mutable:
                    for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                        old.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._graph.steps.append((func, args, kwargs or {}, out))
        return out


class Cuda:
    """What `engine.ops.graphs` uses of `torch.cuda`; calls is the order of what it did."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.current: object = "the caller's stream"

    def current_stream(self) -> object:
        return self.current

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def Stream(self) -> Cuda:  # noqa: N802 - PyTorch's name
        return self

    def Event(self) -> Cuda:  # noqa: N802
        return self

    def wait(self) -> None:
        self.calls.append("wait for the last use")

    def record(self) -> None:
        self.calls.append("used")

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def CUDAGraph(self) -> Graph:  # noqa: N802
        return Graph()

    @contextmanager
    def graph(self, graph: Graph, *, stream: object, capture_error_mode: str) -> Iterator[None]:
        """Records all operations within it; where that fails its stream stays the current one, as with PyTorch."""
        assert stream is self and capture_error_mode == "thread_local"
        before, self.current = self.current, stream
        self.calls.append("record")
        with _Recording(graph):
            yield
        self.calls.append("recorded")
        self.current = before


def pretend_graphs(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """Have work recorded and replayed on the CPU."""
    cuda = Cuda()
    monkeypatch.setattr(graphs, "on_gpu", lambda where: True)
    for name in ("Stream", "Event", "synchronize", "CUDAGraph", "graph", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(torch.cuda, "device", lambda *_: nullcontext())
    return cuda


class Flows:
    """In place of `engine.ops.tvl1.gpu.Batch`, by the CPU."""

    def __init__(self, *_: object) -> None:
        pass

    def launch(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Flows [N, 2, H, W]."""
        pairs = zip(fixed.numpy(), moving.numpy(), strict=True)
        return torch.from_numpy(np.stack([tvl1(one, other, backend="cpu") for one, other in pairs]))


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the "gpu" backend compute by the CPU's functions, with the GPU's buffers and batches."""
    monkeypatch.setattr(gpu, "refusal", lambda: None)
    monkeypatch.setattr(gpu, "Batch", Flows)
    monkeypatch.setattr(gpu, "solve_batch", lambda fixed, moving, *_: Flows().launch(fixed, moving))
    monkeypatch.setattr(device, "current_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(flowmap_gpu, "_idle", graphs.Store[Moments](flowmap_gpu.KEPT))
    monkeypatch.setattr(Moments, "work", by_cpu)


def by_cpu(moments: Moments) -> FlowMaps:
    """`Moments.work` by the CPU's functions."""
    before, given, meshes = (part.numpy() for part in moments.given.parts)
    after = np.stack([like(one, model) for one, model in zip(given, before, strict=True)])
    flows = moments.flows.launch(torch.from_numpy(before), torch.from_numpy(after)).numpy()
    alike = [explained(*one) for one in zip(before, after, flows, strict=True)]
    own = np.stack([take_out_head(flow, mesh) for flow, mesh in zip(flows, meshes, strict=True)])
    points = [keypoints_to_map(keypoints(mesh)) for mesh in meshes]
    inputs = [network_input(moments.kind, whole_map(flow), at) for flow, at in zip(own, points, strict=True)]
    return FlowMaps(*(torch.from_numpy(np.asarray(part, np.float32)) for part in (np.stack(inputs), own, alike)))
