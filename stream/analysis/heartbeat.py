"""Signs of life: who is to give them, and who looks whether they come.

    a process of sources   sends something every BEAT_S at least      looked at by the service
    (`stream.analysis.worker_process`) an analysis thread     ends the frame that it is at               looked at by its
    session   (`stream.analysis.session`) the store's thread     answers a look                             looked at by the
    hub       (`stream.events.hub`)

Silence is counted in looks, not by a clock: where the one who looks was held up itself, as in a machine that was suspended,
nothing counts as silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

BEAT_S = 1.0
LOOK_S = 0.5
STALLED_S = 3.5
"""Silence after which a source counts as stalled; with a beat and a look, that is reported within 5 s."""
REPLACED_S = 20.0
"""Silence after which who is silent is replaced: a machine that swaps may take that long."""
LOADING_S = 120.0
"""The same while networks are being loaded, and compiled for a GPU."""


class Pulse:
    """How long somebody has been silent; `beat` on any thread, `silent_s` on that of who looks, every LOOK_S."""

    def __init__(self) -> None:
        self._beats = self._seen = self._looks = 0

    def beat(self) -> None:
        """A sign of life."""
        self._beats += 1

    def silent_s(self) -> float:
        """Seconds of silence, as seen by this look and the ones before it."""
        beats = self._beats
        self._looks = self._looks + 1 if beats == self._seen else 0
        self._seen = beats
        return self._looks * LOOK_S


class Lookout:
    """A thread that looks every LOOK_S, from `start` to `stop`."""

    def __init__(self, look: Callable[[], None], name: str) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """End it, waiting for a look that is under way; one that never started has ended."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()
