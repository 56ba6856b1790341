"""The sink of the live service: carries what the analysis threads send over to the event loop, and so to the hub."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from stream.events.evidence import EvidenceStore
from stream.events.hub import Hub
from stream.messages import Acted, Decided, Preview, Signal, SourceStatus, WantedPreview


class LoopSink:
    """Passes everything to the event loop, in order, without waiting for it.

    On the loop on_status is called with each status and on_removed with each stream that was removed; on any thread
    wanted_preview returns the preview that clients ask for. When the loop is behind, only the newest preview of a stream is
    passed on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: Hub,
        evidence: EvidenceStore,
        *,
        on_status: Callable[[SourceStatus], None],
        on_removed: Callable[[str], None],
        wanted_preview: Callable[[str], WantedPreview | None],
    ) -> None:
        self._loop, self._hub, self._evidence = loop, hub, evidence
        self._on_status, self._on_removed, self._wanted_preview = on_status, on_removed, wanted_preview
        self._lock = threading.Lock()  # guards _previews
        self._previews: dict[str, Preview] = {}  # by stream, the newest that waits for the loop

    def decided(self, events: Sequence[Decided]) -> None:
        """Events of one stream, in the order they were decided; their evidence is kept before they are sent."""
        for decided in events:
            event = decided.event
            if event.evidence is not None:
                self._evidence.put(event.id, event.evidence)
            # the event without its evidence: thousands of events may wait to be stored
            call_on_loop(self._loop, self._hub.post, decided.without_evidence(kept=event.id in self._evidence))

    def status(self, status: SourceStatus) -> None:
        """A source's status."""
        call_on_loop(self._loop, self._on_status, status)

    def signal(self, signal: Signal) -> None:
        """A source's motion trace."""
        call_on_loop(self._loop, self._hub.post, signal)

    def activity(self, acted: Acted) -> None:
        """An activity of a face."""
        call_on_loop(self._loop, self._hub.post, acted)

    def preview(self, preview: Preview) -> None:
        """A preview that a client asked for."""
        with self._lock:
            waiting = preview.stream in self._previews
            self._previews[preview.stream] = preview
        if not waiting:
            call_on_loop(self._loop, self._post_preview, preview.stream)

    def removed(self, stream: str) -> None:
        """A stream was removed."""
        call_on_loop(self._loop, self._on_removed, stream)

    def wanted_preview(self, stream: str) -> WantedPreview | None:
        """The preview of a stream that clients ask for now."""
        return self._wanted_preview(stream)

    def _post_preview(self, stream: str) -> None:
        with self._lock:
            preview = self._previews.pop(stream)
        self._hub.post(preview)


def call_on_loop(loop: asyncio.AbstractEventLoop, act: Callable[..., None], *values: Any) -> None:
    """Have the loop call act; from any thread. Does nothing once the loop is closed: a thread may outlive the service."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(act, *values)
