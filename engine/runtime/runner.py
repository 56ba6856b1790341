"""The base of every backend that runs a network, with checks of what goes in and comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from engine.errors import ArrayError, BackendError
from engine.types import F32


class Runner(ABC):
    """A loaded network: maps [B, 3, H, W] float32 in 0..1 -> probabilities [B, K] float32, each row summing to 1.

    Made by `engine.runtime.load`. One runner belongs to one thread at a time.
    """

    backend: str
    """Which backend runs it: "tensorrt", "cuda", "ort" or "eager"."""
    device: str
    """What it computes on, in words."""
    classes: tuple[str, ...]
    """The K classes, in the order of the columns."""
    input_shape: tuple[int, int, int]
    """(3, H, W) that the network takes."""

    def __init__(self) -> None:
        self.refusals: dict[str, str] = {}
        """Backends that were preferred but not taken, or lost since, each with the reason."""
        self.notes: list[str] = []
        """Sentences for the user, such as that a network had to be compiled again."""

    def __call__(self, maps: F32) -> F32:
        """Maps [B, 3, H, W] -> probabilities [B, K]; ArrayError for anything else. B may be 0.

        BackendError where the device fails, or its answers are not finite, and no other is left.
        """
        maps = checked(maps, self.input_shape)
        answers = self._run(maps) if len(maps) else np.zeros((0, len(self.classes)), np.float32)
        if not np.isfinite(answers).all():
            raise BackendError("the network's answers are not finite")
        return answers

    def close(self) -> None:  # noqa: B027 (most have none)
        """Gives the device's memory back."""

    @abstractmethod
    def _run(self, maps: F32) -> F32:
        """`__call__` for checked maps, B at least 1; raises BackendError where the device fails."""


def checked(maps: F32, shape: tuple[int, int, int]) -> F32:
    """The maps, contiguous, once they are known to be [B, *shape], float32 and finite; else ArrayError."""
    if not isinstance(maps, np.ndarray) or maps.dtype != np.float32:
        kind = maps.dtype if isinstance(maps, np.ndarray) else type(maps).__name__
        raise ArrayError(f"a network takes a float32 array, not {kind}; convert it first")
    if maps.ndim != 4 or maps.shape[1:] != shape:
        raise ArrayError(f"this network takes maps of shape [B, {', '.join(map(str, shape))}], not {list(maps.shape)}")
    if not np.isfinite(maps).all():
        raise ArrayError("a map holds values that are not finite (NaN or infinity); check the flow it was made of")
    return np.ascontiguousarray(maps)
