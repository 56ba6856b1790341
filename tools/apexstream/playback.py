"""A recorded clip played as a live source: through the whole service, and out again at a client of its socket.

What the client received becomes the report and the files that an analysis of the clip would leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from engine import Pipeline
from engine.config import PipelineSettings
from engine.errors import SourceError
from engine.types import Activity, Event, Face, Frame, Mark
from stream.hub_service import first_completed
from stream.protocol import SUBPROTOCOL
from stream.recorded.analyze import Progress, Report
from stream.recorded.files import EventFiles
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import summarize, timing
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from stream.sources.facts import VideoFacts
from stream.sources.file import open_video
from stream.sources.settings import SourceSettings

ENDED = "the service ended before the clip did"

OnFrame = Callable[[Frame, list[Face]], None]
"""Called with each frame, in order, and the faces found in it."""


class Player:
    """A service with one clip for a source, and a client that has followed it from the start. Made by `play_clip`."""

    def __init__(self, clip: Path, service: Service, client: ClientConnection, factory: _PipelineFactory) -> None:
        self.service = service
        self.latency_ms: list[float] = []
        self._clip, self._client, self._factory = clip, client, factory
        self._facts = facts_of(clip)
        self._started, self._started_at = time.perf_counter(), datetime.now(UTC)

    async def report(self, folder: Path, progress: Progress, stop: asyncio.Event) -> Report:
        """Wait until the clip has been played and all its events have reached the client; their files are left in folder.

        Raises SourceError where the service ends before, or stop is set.
        """
        files = EventFiles(folder, self.service.settings.sources[0].name)
        try:
            receiving = asyncio.ensure_future(self._receive(files, progress))
            await first_completed(receiving, stop.wait(), self.service.failed())
            if stop.is_set():
                raise SourceError(f"{self._clip}: stopped by the user before it was played")
        finally:
            files.close()
        summary = self._summary(files.events, files.activities)
        files.finish(summary)
        taken = timing(self._facts, self._started_at, time.perf_counter() - self._started)
        return Report(self._clip, folder, tuple(files.events), summary, taken, None)

    async def _receive(self, files: EventFiles, progress: Progress) -> None:
        """Take what the service sends until nothing more can come."""
        rate = self._facts.fps or self._facts.frames / max(self._facts.end or 1.0, 1e-3)
        seq, frame = self.service.hub.seq, 0
        while not (self._factory.ended.is_set() and not self.service.hub.backlog and seq >= self.service.hub.seq):
            message = await self._next()
            if message.get("type") == "signal":
                frame = round(message["t"] * rate) + 1
            elif message.get("type") == "expression":
                self.latency_ms.append(message["latency_ms"])
                if message["state"] == "final":
                    seq = message["seq"]
                    files.event(Event.from_dict(message))
            elif message.get("type") == "activity":
                files.activity(activity_of(message))
            progress(frame, self._facts.frames, len(files.events))

    async def _next(self) -> dict[str, Any]:
        """The next message; an empty one now and then, so that the end is noticed when nothing is sent any more."""
        try:
            async with asyncio.timeout(0.2):
                raw = await self._client.recv()
        except TimeoutError:
            return {}
        except ConnectionClosed as error:
            raise SourceError(f"{self._clip}: {ENDED}") from error
        return {} if isinstance(raw, bytes) else dict(json.loads(raw))

    def _summary(self, events: list[Event], activities: list[Activity]) -> dict[str, Any]:
        pipeline = self._factory.made[-1]
        return summarize(
            stream=self.service.settings.sources[0].name,
            video=self._facts,
            events=events,
            activities=activities,
            statistics=pipeline.statistics,
            model=pipeline.model,
            backend=pipeline.backend,
            settings=AnalysisSettings(pipeline=self.service.settings.pipeline),
            problem=None,
        )


class _PipelineFactory:
    """Makes the clip's pipeline; `ended` is set when the clip has been through it."""

    def __init__(self, seen: OnFrame) -> None:
        self.seen = seen
        self.ended = asyncio.Event()
        self.made: list[Pipeline] = []
        self._loop = asyncio.get_running_loop()

    def make(self, settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        """On the worker's thread."""
        self.made.append(_ObservedPipeline(self, settings, stream, session))
        return self.made[-1]

    def close(self) -> None:
        """On the worker's thread, after the last event was handed over."""
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self.ended.set)


class _ObservedPipeline(Pipeline):
    """A pipeline that shows what it sees and reports when it is closed."""

    def __init__(self, factory: _PipelineFactory, settings: PipelineSettings, stream: str, session: str) -> None:
        super().__init__(settings, stream=stream, session=session)
        self._factory = factory

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        self._factory.seen(frame, faces)
        return super().advance(frame, faces)

    def close(self) -> None:
        super().close()
        self._factory.close()


@asynccontextmanager
async def play_clip(
    clip: Path, store: Path, *, seen: OnFrame, server: ServerSettings | None = None, pipeline: PipelineSettings | None = None
) -> AsyncIterator[Player]:
    """A live service that plays clip once, its events stored in the folder store; seen gets each frame and its faces."""
    factory = _PipelineFactory(seen)
    settings = LiveSettings(
        sources=(SourceSettings(url=str(clip), name=clip.stem),),
        server=server or ServerSettings(port=0),
        store=StoreSettings(folder=store),
        pipeline=pipeline or PipelineSettings(),
    )
    async with (
        Service(settings, make=factory.make) as service,
        connect(service.events_url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None) as client,
    ):
        yield Player(clip, service, client, factory)


def activity_of(message: dict[str, Any]) -> Activity:
    """The activity in a message of type activity."""
    start, end = (Mark(message[name]["frame"], message[name]["t"]) for name in ("start", "end"))
    return Activity(message["face"], message["kind"], start, end, message.get("expression_probability"))


def facts_of(clip: Path) -> VideoFacts:
    """The facts of a video that was read to its end. Raises SourceError."""
    with open_video(clip) as source:
        deque(source, maxlen=0)
        return source.facts
