"""What stands between the parts of the service: each knows its neighbours by their protocols alone.

LoopSink    session's threads -> event loop -> hub       (`stream.messages.Sink`)
KnownFacts  hub, shelf -> server                         (`stream.server.routes.Facts`)
Cameras     server -> session, off the loop              (`stream.server.camera.BrowserCameras`)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import OutputError
from stream.analysis.session import Feed, Sources
from stream.events.evidence import Shelf
from stream.events.hub import Hub
from stream.messages import Acted, Decided, Preview, PreviewWish, Signal, SourceStatus


class LoopSink:
    """The sink of the session's threads: brings everything to the loop, in order, and never waits.

    heard gets each status and gone each stream that is gone, on the loop; wish says, to any thread, which pictures are asked
    for. Of a stream's pictures only the newest is brought when the loop is behind; they are the only ones that come often and
    large.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: Hub,
        shelf: Shelf,
        *,
        heard: Callable[[SourceStatus], None],
        gone: Callable[[str], None],
        wish: Callable[[str], PreviewWish | None],
    ) -> None:
        self._loop, self._hub, self._shelf = loop, hub, shelf
        self._heard, self._gone, self._wish = heard, gone, wish
        self._lock = threading.Lock()  # guards _pictures
        self._pictures: dict[str, Preview] = {}  # by stream, the newest that waits for the loop

    def decided(self, events: Sequence[Decided]) -> None:
        """Events of one stream, in the order they were decided; their pictures are on the shelf before they are sent."""
        bring(self._loop, self._post, [self._shelved(decided) for decided in events])

    def status(self, status: SourceStatus) -> None:
        """How a source is doing."""
        bring(self._loop, self._heard, status)

    def signal(self, signal: Signal) -> None:
        """What the spotter saw."""
        bring(self._loop, self._hub.post, signal)

    def activity(self, acted: Acted) -> None:
        """What a face did."""
        bring(self._loop, self._hub.post, acted)

    def preview(self, preview: Preview) -> None:
        """A picture that somebody asked for."""
        with self._lock:
            waiting = preview.stream in self._pictures
            self._pictures[preview.stream] = preview
        if not waiting:
            bring(self._loop, self._show, preview.stream)

    def removed(self, stream: str) -> None:
        """A stream is gone."""
        bring(self._loop, self._gone, stream)

    def preview_wish(self, stream: str) -> PreviewWish | None:
        """What is asked for of a stream's pictures now."""
        return self._wish(stream)

    def _shelved(self, decided: Decided) -> Decided:
        """Without the pictures: thousands of events may wait to be stored."""
        event = decided.event
        if event.evidence is None:
            return decided
        self._shelf.put(event.id, event.evidence)
        return decided.without_evidence(kept=True)

    def _post(self, events: Sequence[Decided]) -> None:
        for decided in events:
            self._hub.post(decided)

    def _show(self, stream: str) -> None:
        with self._lock:
            preview = self._pictures.pop(stream)
        self._hub.post(preview)


def bring(loop: asyncio.AbstractEventLoop, act: Callable[..., None], *values: Any) -> None:
    """Have the loop do it; from any thread. Nothing happens where the loop is closed: a thread outlived the service."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(act, *values)


@dataclass(frozen=True)
class KnownFacts:
    """What the server tells of the service; ready says whether its networks are loaded."""

    hub: Hub
    shelf: Shelf
    model: str
    version: str
    store_name: str
    ready: Callable[[], bool]

    @property
    def seq(self) -> int:
        """The number of the last stored event."""
        return self.hub.seq

    @property
    def problem(self) -> str | None:
        """What ails the service, in a sentence; None while it is ready and well."""
        return self.hub.problem if self.ready() else "the networks are being loaded"

    def statuses(self) -> Sequence[SourceStatus]:
        """The latest of every source."""
        return list(self.hub.streams.values())

    async def stored(self, since: int, **bounds: Any) -> list[dict[str, Any]]:
        """Stored events after since. Raises OutputError where they cannot be read."""
        try:
            return await self.hub.stored(since, **bounds)
        except ConnectionAbortedError as error:
            raise OutputError("the service is ending") from error

    def picture(self, event: str, picture: str) -> bytes | None:
        """A PNG behind an event; None where there is none."""
        return self.shelf.get(event, picture)


class Cameras:
    """Browsers' cameras, let into the session."""

    def __init__(self, session: Sources) -> None:
        self._session = session

    async def add_browser(self, name: str, feed: Feed) -> None:
        """Analyse feed as the stream name. Raises InputError where it is not taken."""
        await asyncio.to_thread(self._session.add_browser, name, feed)

    async def remove_browser(self, name: str) -> None:
        """End that stream; its events are flushed first."""
        await asyncio.to_thread(self._session.remove_browser, name)

    def told(self, status: SourceStatus) -> None:
        """How that stream is doing."""
        self._session.tell(status)
