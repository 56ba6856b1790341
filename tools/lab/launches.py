"""What the way from crops to probabilities queues on a GPU: launches and bytes, counted without a GPU, not timed.

    python -m lab.launches [--moments N] [--json]

The steps run on tensors without contents (PyTorch's device "meta"), which stand for those on a GPU, and Triton's kernels are
counted where they would start. An operation of PyTorch that computes counts as one launch, though a few are two or three. It is
an error for a step to touch a tensor of the host, or to read a value back: what is recorded as a CUDA graph may do neither.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.geometry import CROP_SIDE
from engine.mesh import MESH_POINTS
from engine.ops.graphs import room_for
from engine.ops.strain import triton_kernels as strain_kernels
from engine.ops.tvl1 import gpu as flow
from engine.ops.tvl1 import triton_kernels as flow_kernels
from engine.ops.tvl1 import triton_relax
from engine.ops.tvl1.method import METHOD, sizes
from engine.ops.tvl1.tiling import tile
from engine.recognition import flowmap_gpu, triton_kernels
from engine.runtime.eager import rebuild
from engine.runtime.torch_cuda import FORMS, prepared
from engine.weights import default_weights, load_card

GPU = torch.device("meta")
FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "alias",
    "lift_fresh",
    "_unsafe_view",
}
"""Operations that start nothing, besides those that only look at a tensor in another way."""


class HostTripError(AssertionError):
    """A step that is to stay on the GPU touches the host."""


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that start something on the GPU, by name. Raises HostTripError for one that touches the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counted.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of each operation."""
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            raise HostTripError("a value is read back from the GPU")
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, Tensor) and tensor.device != GPU and tensor.dim():
                raise HostTripError(f"{name} touches a tensor of the {tensor.device}")
        if not func.is_view and name not in FREE:
            self.counted[name] += 1
        return out


class _Kernel:
    """In place of a Triton kernel: counts its starts."""

    def __init__(self, name: str, counted: Counter[str]) -> None:
        self._name, self._counted = name, counted

    def __getitem__(self, grid: object) -> Any:
        return lambda *_given, **_options: self._counted.update((self._name,))


@contextmanager
def counted_kernels(counted: Counter[str], *modules: ModuleType) -> Iterator[None]:
    """Within this, the kernels of modules are counted rather than started."""
    kernels = [(module, name) for module in modules for name, value in vars(module).items() if _is_kernel(name, value)]
    before = [getattr(module, name) for module, name in kernels]
    for module, name in kernels:
        setattr(module, name, _Kernel(name, counted))
    try:
        yield
    finally:
        for (module, name), kernel in zip(kernels, before, strict=True):
            setattr(module, name, kernel)


def _is_kernel(name: str, value: object) -> bool:
    return hasattr(value, "fn") and hasattr(value, "run") and not name.startswith("_")


class _Flows:
    """In place of `engine.ops.tvl1.gpu.Batch`, whose launches are counted by themselves."""

    def __init__(self, shape: tuple[int, int, int], *_: object) -> None:
        self._shape = shape

    def launch(self, fixed: Tensor, _moving: Tensor) -> Tensor:
        pairs, height, width = self._shape
        return torch.empty((pairs, 2, height, width), device=fixed.device)


@dataclass(frozen=True)
class Row:
    """One step: what it starts on the GPU, by name and together."""

    step: str
    launches: int
    by_name: dict[str, int]


def count(moments: int) -> list[Row]:
    """TV-L1, the other steps to the inputs of the shipped network, and that network, for so many moments."""
    room = room_for(moments)
    return [flow_row(room), inputs_row(load_card().input, room), network_row(room)]


def flow_row(pairs: int) -> Row:
    """TV-L1, cut into tiles as for an H200."""
    counted: Counter[str] = Counter()
    tilings = [tile(level, METHOD, pairs) for level in sizes(CROP_SIDE, CROP_SIDE, METHOD)]
    with counted_kernels(counted, flow_kernels, triton_relax):
        flow.Batch((pairs, CROP_SIDE, CROP_SIDE), METHOD, torch.device("cpu"), tilings)._launch()
    return Row("TV-L1", counted.total(), dict(counted))


def inputs_row(kind: str, room: int) -> Row:
    """From crops to inputs, without TV-L1."""
    launches = Launches()
    kernels = counted_kernels(launches.counted, triton_kernels, strain_kernels)
    with kernels, patch.object(flow, "Batch", _Flows):
        made = flowmap_gpu.Moments(kind, room, GPU, flowmap_gpu.Tables.made(kind, GPU))
        with launches:
            made.work()
    return Row("other steps to the inputs", launches.total, dict(launches.counted))


def network_row(room: int) -> Row:
    """The shipped network in the form that is tried first, from inputs to probabilities."""
    network, description = rebuild(default_weights())
    ready = next(made for form in FORMS if (made := prepared(network, GPU, form)) is not None)
    maps, launches = torch.empty((room, *description["input_shape"]), device=GPU), Launches()
    with torch.no_grad(), launches:
        ready(maps)
    return Row("network", launches.total, dict(launches.counted))


def moved(moments: int) -> dict[str, int]:
    """Bytes from the host (crops and meshes, to the next power of two) and back (inputs, flows, how they explain, answers)."""
    card, room = load_card(), room_for(moments)
    channels, height, width = card.input_shape
    up = room * (2 * CROP_SIDE**2 + 3 * MESH_POINTS)
    down = moments * (channels * height * width + 2 * CROP_SIDE**2 + 1 + len(card.classes))
    return {"to the GPU": 4 * up, "back": 4 * down}


def main(
    moments: Annotated[int, typer.Option(min=1, max=flowmap_gpu.AT_ONCE, help="Moments in the batch.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Count what a batch starts on a GPU and copies to and from it; needs no GPU."""
    rows, copied = count(moments), moved(moments)
    if as_json:
        typer.echo(json.dumps({"steps": [asdict(row) for row in rows], "bytes": copied}, indent=2))
        return
    for row in rows:
        most = ", ".join(f"{name} {number}" for name, number in Counter(row.by_name).most_common(6))
        typer.echo(f"{row.step:<28} {row.launches:4d} launches ({most})")
    typer.echo(", ".join(f"{number / 1e6:.2f} MB {direction}" for direction, number in copied.items()))


if __name__ == "__main__":
    typer.run(main)
