"""The base of every backend that runs a network, and the chain of them: when a device fails, the next takes the same maps."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import ArrayError, BackendError, WeightsError
from engine.types import F32

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class Runner(ABC):
    """A loaded network: maps [B, 3, H, W] float32 in 0..1 -> probabilities [B, K] float32, each row summing to 1.

    Made by `engine.runtime.load`. One runner belongs to one thread at a time.
    """

    backend: str
    """Which backend runs it: "tensorrt", "tensorrt-rtx", "cuda", "torch-cuda", "ort" or "eager"."""
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

    @property
    def on_device(self) -> Callable[[Tensor], Tensor] | None:
        """Takes maps [B, 3, H, W] that lie on the GPU to probabilities [B, K] there, unchecked, and does not wait for them.

        None where the backend takes arrays alone. The call raises BackendError where the GPU fails.
        """
        return None

    def close(self) -> None:  # noqa: B027 (most have none)
        """Gives the device's memory back."""

    @abstractmethod
    def _run(self, maps: F32) -> F32:
        """`__call__` for checked maps, B at least 1; raises BackendError where the device fails."""


Opener = Callable[[], Runner]
"""Opens one backend. Raises BackendError with the reason where it cannot run here."""


class FallbackRunner(Runner):
    """A Runner over a chain of backends, best first.

    The first that opens runs. Where a call fails (the GPU is out of memory, or gone) the next that opens answers it and all
    that follow; the reason is added to `refusals` and `notes`, and logged. Raises BackendError where no backend is left.
    """

    def __init__(self, chain: Sequence[tuple[str, Opener]]) -> None:
        super().__init__()
        self._rest = list(chain)
        self._lost: list[str] = []
        self._over = False  # no backend is left: what ran last is closed
        self._use(self._opened())

    @property
    def on_device(self) -> Callable[[Tensor], Tensor] | None:
        """That of the backend that runs now; a failure in it is no reason to change the backend, one in a call is."""
        return self._runner.on_device

    def close(self) -> None:
        """Gives the memory back of the backend that runs; one that was lost is closed already."""
        self._runner.close()

    def _run(self, maps: F32) -> F32:
        while not self._over:
            try:
                return self._runner(maps)
            except BackendError as failed:
                self._fall_back(failed)
        raise self._none_left()

    def _use(self, runner: Runner) -> None:
        self._runner = runner
        self.backend, self.device = runner.backend, runner.device
        self.classes, self.input_shape = runner.classes, runner.input_shape
        self.notes = [*self._lost, *runner.notes]  # the backends lost so far, then those of the one that runs now

    def _fall_back(self, failed: BackendError) -> None:
        lost = self._runner
        self.refusals[lost.backend] = str(failed)
        lost.close()
        self._over = True
        runner = self._opened(lost)
        note = f"the network no longer runs on {lost.device} ({failed}); {runner.backend} on {runner.device} goes on"
        self._lost.append(note)
        self._use(runner)
        self._over = False
        log.warning("%s", note)

    def _opened(self, lost: Runner | None = None) -> Runner:
        """The next that opens; in place of one that was lost, a network's file that was removed since is one more refusal."""
        while self._rest:
            name, opener = self._rest.pop(0)
            try:
                runner = opener()
            except (BackendError, WeightsError) as reason:
                if lost is None and isinstance(reason, WeightsError):
                    raise
                self.refusals[name] = str(reason)
                continue
            for note in runner.notes:
                log.warning("%s", note)
            return runner
        raise self._none_left()

    def _none_left(self) -> BackendError:
        return BackendError("; ".join(f"backend {name} cannot run here: {why}" for name, why in self.refusals.items()))


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
