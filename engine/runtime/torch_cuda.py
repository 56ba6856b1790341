"""PyTorch on the GPU: the network rebuilt from its source, with everything from maps to probabilities as one CUDA graph.

The form that takes the least time is chosen of those whose answers are the CPU's: committees of AHMSA-Nets in single precision
with members side by side, as launches cost them more than arithmetic; others in half precision, else in single. In half
precision matrix products and convolutions of the members take 16 bits; norms, softmax, sums and the kernel machine, whose
distances are small differences of large numbers, stay in 32 (as `engine.runtime.half` does for TensorRT). Maps that lie on the
GPU already are taken there (`TorchCudaRunner.on_device`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import BackendError
from engine.ops import device
from engine.runtime import gpu
from engine.runtime.eager import rebuild
from engine.runtime.parity import difference
from engine.runtime.runner import Runner
from engine.types import F32

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from engine.models.committee import Committee
    from engine.ops.graphs import Store

MAX_BATCH = 64
"""Maps that go through the network at once."""
KEPT = 8
"""Sizes of batches whose buffers are kept: all of them."""
FORMS = {"float32 side by side": "float32", "float16": "float16", "float32": "float32"}
"""What a network is tried as, in this order, each with its precision (`parity.TOLERANCES`)."""


class TorchCudaRunner(Runner):
    """A Runner on PyTorch, on the current GPU: see `engine.runtime.runner.Runner`.

    where is another device for it. Raises BackendError where the GPU cannot run the network, WeightsError for a file that is
    no network.
    """

    backend = "torch-cuda"

    def __init__(self, weights: Path, *, where: torch.device | None = None) -> None:
        super().__init__()
        network, description = rebuild(weights)
        self.classes = tuple(description["classes"])
        channels, height, width = description["input_shape"]
        self.input_shape = (channels, height, width)
        self._idle: Store[Buffered] | None = None
        with device.translated("Opening the network"):
            self.where = where or _current()
            self.form, self._network = self._opened(network, weights)
        self.device = f"{_name(self.where)}, PyTorch, {self.form}"

    @property
    def on_device(self) -> Callable[[Tensor], Tensor]:
        """See `Runner.on_device`."""
        return self._on_device

    def _on_device(self, maps: Tensor) -> Tensor:
        import torch

        with device.translated(f"The network's answers to {len(maps)} maps"), torch.no_grad():
            parts = [self._answers(self._network, part) for part in torch.split(maps, MAX_BATCH)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._idle = None

    def _run(self, maps: F32) -> F32:
        return self._on_arrays(self._network, maps)

    def _on_arrays(self, network: nn.Module, maps: F32) -> F32:
        """The answers of one of the forms, copied back."""
        import torch

        with device.translated(f"The network's answers to {len(maps)} maps"), torch.no_grad():
            parts = [self._answers(network, part) for part in torch.split(torch.from_numpy(maps), MAX_BATCH)]
            return np.asarray(torch.cat(parts).cpu().numpy(), np.float32)

    def _answers(self, network: nn.Module, maps: Tensor) -> Tensor:
        from engine.ops.graphs import Store, room_for

        if self._idle is None:
            self._idle = Store(KEPT)
        room = room_for(len(maps))
        return self._idle.run(
            (network, room),
            self.where,
            lambda: Buffered(network, (room, *self.input_shape), self.where),
            lambda buffered: buffered(maps),
        )

    def _opened(self, network: Committee, weights: Path) -> tuple[str, nn.Module]:
        """The network on the device in the first form whose answers are the CPU's, and what that is called."""
        import torch

        def reference(maps: F32) -> F32:
            with torch.no_grad():
                return np.asarray(network(torch.from_numpy(maps)), np.float32)

        why = ""
        for form, precision in FORMS.items():
            there = prepared(network, self.where, form)
            if there is None:
                continue
            try:
                why = difference(
                    lambda maps, there=there: self._on_arrays(there, maps),  # type: ignore[misc]
                    reference,
                    "PyTorch on the CPU",
                    self.input_shape,
                    precision,
                )
            except BackendError as cause:
                why = str(cause)
            if not why:
                return form, there
            self._idle = None
            self.notes.append(f"{form} is not used: {why}")
        raise BackendError(f"PyTorch cannot run {weights} on the GPU: {why}")


class Buffered:
    """A network on its device with the buffers for one size of batch, and their graph."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], where: torch.device) -> None:
        from engine.ops.graphs import Buffers, Recorded

        self._network, self._given = network, Buffers([shape], where)
        self._recorded: Recorded[Tensor] = Recorded(where)

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps [B, 3, H, W], from the host's memory or the device's -> probabilities [B, K]."""
        self._given.fill([maps])
        return self._recorded(self._work)[: len(maps)].clone()

    def _work(self) -> Tensor:
        answers: Tensor = self._network(self._given.parts[0])
        return answers


def prepared(network: Committee, where: torch.device, form: str) -> nn.Module | None:
    """A copy of the network on a device in one of FORMS; None where it has no such form."""
    from torch import nn

    from engine.models.stacked import StackedCommittee, fits

    there = deepcopy(network)
    if form == "float16":
        there.members = nn.ModuleList(_in_half(member, where.type) for member in there.members)
    elif form != "float32":
        return StackedCommittee(there).to(where) if fits(there) else None
    return there.to(where)


def _in_half(member: nn.Module, kind: str) -> nn.Module:
    """A member whose products and convolutions are in half precision, with parameters stored so."""
    import torch
    from torch import nn

    class InHalf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.member = member

        def forward(self, maps: Tensor) -> Tensor:
            with torch.autocast(kind, torch.float16, cache_enabled=False):  # a graph may not keep what a cache will free
                out: Tensor = self.member(maps)
            return out.float()

    for part in member.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.half()
    return InHalf()


def refusal() -> str | None:
    """Why PyTorch cannot compute on a GPU here, None where it can be tried. Imports nothing heavy."""
    if reason := gpu.refusal():
        return reason
    built = gpu.has_library("torch", "lib/*torch_cuda*")
    if built is None:
        return "torch not installed; install apexstream[gpu]"
    return None if built else "this torch is built for the CPU; install one built for CUDA"


def _current() -> torch.device:
    import torch

    if not torch.cuda.is_available():
        raise BackendError(f"torch {torch.__version__} sees no CUDA GPU")
    return torch.device("cuda", torch.cuda.current_device())


def _name(where: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
