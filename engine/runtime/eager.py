"""Eager PyTorch: the same network rebuilt from its source, for machines with PyTorch and as the reference for exports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ApexError, BackendError, WeightsError
from engine.runtime import parameters
from engine.runtime.runner import Runner
from engine.types import F32

if TYPE_CHECKING:
    from engine.models.committee import Committee


class EagerRunner(Runner):
    """A Runner on PyTorch, CPU: see `engine.runtime.runner.Runner`.

    The network is rebuilt by the name and options written in the ONNX file and filled with the parameters that the file
    carries under their PyTorch names; nothing of the ONNX graph is used.
    """

    backend = "eager"
    device = "CPU, PyTorch"

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self._network, description = rebuild(weights)
        self.classes = tuple(description["classes"])
        channels, height, width = description["input_shape"]
        self.input_shape = (channels, height, width)

    def _run(self, maps: F32) -> F32:
        import torch

        try:
            with torch.inference_mode():
                return np.asarray(self._network(torch.from_numpy(maps)), np.float32)
        except (RuntimeError, MemoryError) as cause:
            raise BackendError(f"PyTorch failed: {cause}") from cause


def rebuild(weights: Path) -> tuple[Committee, dict[str, Any]]:
    """The network in an exported ONNX file as a PyTorch module in evaluation mode, and the file's description of it.

    Raises BackendError without PyTorch, WeightsError for a file that cannot be read, names no architecture that can be built,
    or does not carry exactly that architecture's parameters.
    """
    try:
        import torch
    except ModuleNotFoundError as missing:
        raise BackendError(f"eager PyTorch needs {missing.name}; install apexstream[train]") from missing
    from engine.models.committee import assemble

    description, arrays = parameters.read(weights)
    try:
        classes, options = len(description["classes"]), description["options"]
        network = assemble(description["network"], options, description["members"], description.get("kernel"), classes)
        network.load_state_dict({name: torch.tensor(arrays[name]) for name in network.state_dict() if name in arrays})
    except (KeyError, TypeError, ValueError, RuntimeError, ApexError) as cause:
        raise WeightsError(f"{weights} does not fit the network that it names: {cause}") from cause
    return network.eval().requires_grad_(False), description
