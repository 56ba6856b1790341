"""Shared by tests of the live service: a sink that collects what it is sent, and waiting for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.types import Frame
from stream.messages import Acted, Arrival, Decided, Preview, Signal, SourceStatus, WantedPreview

PATIENCE_S = 60.0
"""Time limit on a busy machine for what usually takes a moment."""

R = TypeVar("R")


class Collected:
    """A sink that collects everything; `until` waits on the test's thread."""

    def __init__(self, wanted: WantedPreview | None = None) -> None:
        self.events: list[Decided] = []
        self.statuses: list[SourceStatus] = []
        self.signals: list[Signal] = []
        self.activities: list[Acted] = []
        self.previews: list[Preview] = []
        self.gone: list[str] = []
        self.wanted = wanted
        self._changed = threading.Condition()  # guards all lists

    def decided(self, events: Sequence[Decided]) -> None:
        self._add(lambda: self.events.extend(events))

    def status(self, status: SourceStatus) -> None:
        self._add(lambda: self.statuses.append(status))

    def signal(self, signal: Signal) -> None:
        self._add(lambda: self.signals.append(signal))

    def activity(self, acted: Acted) -> None:
        self._add(lambda: self.activities.append(acted))

    def preview(self, preview: Preview) -> None:
        self._add(lambda: self.previews.append(preview))

    def removed(self, stream: str) -> None:
        self._add(lambda: self.gone.append(stream))

    def wanted_preview(self, stream: str) -> WantedPreview | None:
        return self.wanted

    def finals(self, stream: str | None = None) -> list[Decided]:
        """The final events, of one stream or of all."""
        kept = [one for one in self.events if one.event.state == "final"]
        return [one for one in kept if stream in (None, one.event.stream)]

    def states(self, stream: str) -> list[str]:
        """The states that a stream went through, each once in a row."""
        seen = [status.state for status in self.statuses if status.stream == stream]
        return [state for k, state in enumerate(seen) if k == 0 or state != seen[k - 1]]

    def until(self, true: Callable[[], R], what: str) -> R:
        """The result of `true` once it is true; fails the test after PATIENCE_S."""
        with self._changed:
            self._changed.wait_for(true, PATIENCE_S)
            found = true()
        assert found, f"waited {PATIENCE_S:.0f} s for {what}"
        return found

    def _add(self, add: Callable[[], None]) -> None:
        with self._changed:
            add()
            self._changed.notify_all()


class Ready:
    """Receives the result of loading."""

    def __init__(self) -> None:
        self.results: list[Exception | None] = []
        self.called = threading.Event()

    def __call__(self, error: Exception | None) -> None:
        self.results.append(error)
        self.called.set()

    def error(self) -> Exception | None:
        assert self.called.wait(PATIENCE_S), "loading never ended"
        assert len(self.results) == 1, "called once"
        return self.results[0]


def arrivals(frames: Sequence[Frame], start: float | None = None) -> list[Arrival]:
    """Frames as if each had arrived at its own time."""
    started, wall = time.monotonic() if start is None else start, time.time()
    return [Arrival(frame, started + frame.t, wall + frame.t) for frame in frames]
