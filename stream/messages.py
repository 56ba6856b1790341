"""What the live service's threads hand to its event loop: frozen values, and the sink they go to.

    capture thread -> queue -> worker thread (the pipeline) -> Sink -> event loop: store, subscribers

Times named t are seconds of the source's own clock; `arrived` is `time.monotonic()` when the frame that decided was decoded;
`since` and `at` are seconds of the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from engine.types import Activity, ActivityKind, Event, Frame

SourceState = Literal["starting", "live", "stalled", "reconnecting", "ended"]
SourceKind = str
"""webcam, rtsp, http, file, pattern, ... (`stream.sources.kinds`), or browser for a camera shown by a web page."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """A decoded frame with the moment it arrived, by the monotonic clock and by the wall clock."""

    frame: Frame
    arrived: float
    at: float


@dataclass(frozen=True)
class SourceStatus:
    """How a source is doing; detail is one sentence for people, without credentials, "" when there is nothing to say."""

    stream: str
    kind: SourceKind
    state: SourceState
    detail: str = ""
    fps: float = 0.0
    frames: int = 0
    drops: int = 0
    reconnects: int = 0
    width: int = 0
    height: int = 0
    since: float = 0.0


@dataclass(frozen=True)
class Decided:
    """An event and when the frame that decided it arrived; evidence says that its pictures are kept apart from it."""

    event: Event
    arrived: float
    evidence: bool = False

    def without_evidence(self, *, kept: bool = False) -> Decided:
        """For what keeps many events; kept says that the pictures are kept elsewhere."""
        return replace(self, event=replace(self.event, evidence=None), evidence=kept)


@dataclass(frozen=True)
class Acted:
    """What a face of a stream did besides expressions, once it is over."""

    stream: str
    activity: Activity


@dataclass(frozen=True)
class FaceTrace:
    """One face's motion since the last signal, a value a frame: loudness (1 is the spotter's threshold) and motion in pixels
    of the 128 px crop; and what it does besides, with the time at which that began."""

    face: int
    t: tuple[float, ...]
    loudness: tuple[float, ...]
    moved_px: tuple[float, ...]
    doing: Mapping[ActivityKind, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Signal:
    """What the spotter saw in the last tenth of a second; t and at are those of the newest frame."""

    stream: str
    t: float
    at: float
    faces: tuple[FaceTrace, ...]


@dataclass(frozen=True, eq=False)
class Preview:
    """A small picture of a stream: a JPEG, and a header with its size, time, landmarks and regions in its pixels."""

    stream: str
    header: dict[str, Any]
    jpeg: bytes


@dataclass(frozen=True)
class PreviewWish:
    """The largest picture and the most pictures a second that anybody watching a stream asks for."""

    width: int
    fps: float


class Sink(Protocol):
    """Where worker and capture threads send what they have; every method may be called from any thread and never blocks."""

    def decided(self, events: Sequence[Decided]) -> None:
        """Events of one stream with their evidence, in the order they were decided."""

    def status(self, status: SourceStatus) -> None:
        """A source's state changed, or its figures are due."""

    def signal(self, signal: Signal) -> None:
        """About ten a second and stream."""

    def activity(self, acted: Acted) -> None:
        """A face stopped speaking, blinked, looked elsewhere ...; a few a second at most."""

    def preview(self, preview: Preview) -> None:
        """A picture that somebody asked for."""

    def removed(self, stream: str) -> None:
        """A stream that came and went (a browser's camera) is gone."""

    def preview_wish(self, stream: str) -> PreviewWish | None:
        """What is asked for of a stream's pictures now; None while nobody looks."""
