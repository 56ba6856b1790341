"""Liveness checks: what has to give a heartbeat, and who checks it.

a worker process     sends something every BEAT_S at least         checked by the service (`stream.analysis.worker_process`)
an analysis thread   completes the frame that it is at             checked by its session (`stream.analysis.session`)

Silence is counted in checks, not by a clock: where the checking thread itself was held up, as when the machine was suspended,
no silence is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

BEAT_S = 1.0
CHECK_S = 0.5
STALLED_S = 3.5
"""Silence after which a source is reported as stalled; together with a beat and a check, that is within 5 s."""
REPLACED_S = 20.0
"""Silence after which a thread or process is replaced: a machine that swaps may take that long."""
LOADING_S = 120.0
"""The same while networks are loaded, and compiled for a GPU."""


class Heartbeat:
    """Measures silence: `beat` is called on any thread, `silent_s` on the checking thread, every CHECK_S."""

    def __init__(self) -> None:
        self._beats = self._seen = self._checks = 0

    def beat(self) -> None:
        """Give a sign of life."""
        self._beats += 1

    def silent_s(self) -> float:
        """Seconds of silence, by this check and the ones before it."""
        beats = self._beats
        self._checks = self._checks + 1 if beats == self._seen else 0
        self._seen = beats
        return self._checks * CHECK_S


class Monitor(threading.Thread):
    """A thread that calls check every CHECK_S, from `start` to `stop`."""

    def __init__(self, check: Callable[[], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._check = check
        self._stopping = threading.Event()

    def stop(self, timeout: float) -> None:
        """Stop it and wait for a running check, up to timeout seconds; does nothing where it was never started."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout)

    def run(self) -> None:
        """Check until stopped."""
        while not self._stopping.wait(CHECK_S):
            self._check()
