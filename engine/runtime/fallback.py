"""A network that keeps running when its device fails: the next backend of the chain takes the same maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from engine.errors import BackendError, WeightsError
from engine.runtime.contract import Runner
from engine.types import F32

log = logging.getLogger(__name__)

Opener = Callable[[], Runner]
"""Opens one backend. Raises BackendError with the reason where it cannot run here."""


class FallbackRunner(Runner):
    """A Runner over a chain of backends, best first: see `engine.runtime.contract.Runner`.

    The first that opens runs. Where a call fails (the GPU is out of memory, or gone) the next that opens answers it and all
    that follow; the reason is added to `refusals` and `notes`, and logged. Raises BackendError where no backend is left.
    """

    def __init__(self, chain: Sequence[tuple[str, Opener]]) -> None:
        super().__init__()
        self._rest = list(chain)
        self._lost: list[str] = []
        self._over = False  # no backend is left: what ran last is closed
        self._use(self._opened())

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
