"""What the analysis threads send to the event loop: frozen values, and the interface of the sink they go to.

    capture thread -> queue -> worker thread (the pipeline) -> Sink -> event loop: store, subscribers

Times named t are seconds of the source's own clock; `arrived` is `time.monotonic()` when the frame that decided was decoded;
`since` and `at` are seconds of the Unix epoch. `clock_offset` added to a t is `time.monotonic()` when that frame was captured
(`stream.sources.capture_clock`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from engine.types import Activity, ActivityKind, Event, Frame

SourceState = Literal["starting", "live", "stalled", "reconnecting", "ended"]
NodeCondition = Literal["live", "lost", "ended", "incompatible", "removed"]
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
    """The state of a source; detail is one sentence for people, without credentials, or "". node is the name of the node that
    analyses it, where a fleet's hub passes it on."""

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
    node: str | None = None


@dataclass(frozen=True)
class Decided:
    """An event and when the frame that decided it arrived; evidence says that its evidence is kept elsewhere."""

    event: Event
    arrived: float
    evidence: bool = False
    clock_offset: float = 0.0

    def without_evidence(self, *, kept: bool = False) -> Decided:
        """The event alone, for keeping many of them; kept says that its evidence is kept elsewhere."""
        return replace(self, event=replace(self.event, evidence=None), evidence=kept)


@dataclass(frozen=True, eq=False)
class Forwarded:
    """An event of another node in its JSON form, without seq: body has node, node_store and, of a final event, node_seq."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class NodeStatus:
    """The state of a node of a fleet, as its hub sees it; detail is one sentence for people, or "". since: seconds of the Unix
    epoch."""

    name: str
    state: NodeCondition
    detail: str = ""
    page: str | None = None
    version: str = ""
    model: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Acted:
    """An activity of a face besides expressions, sent when it has ended."""

    stream: str
    activity: Activity
    clock_offset: float = 0.0


@dataclass(frozen=True)
class FaceTrace:
    """One face's motion since the last signal, one value a frame: loudness (1 is the spotter's threshold) and motion in pixels
    of the 128 px crop. doing holds its current activities with the time at which each began."""

    face: int
    t: tuple[float, ...]
    loudness: tuple[float, ...]
    moved_px: tuple[float, ...]
    doing: Mapping[ActivityKind, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Signal:
    """The motion of all faces in the last tenth of a second; t and at are those of the newest frame."""

    stream: str
    t: float
    at: float
    faces: tuple[FaceTrace, ...]
    clock_offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Preview:
    """A small picture of a stream: a JPEG, and a header with its size, time, landmarks and regions in its pixels."""

    stream: str
    header: dict[str, Any]
    jpeg: bytes


@dataclass(frozen=True)
class WantedPreview:
    """The largest width and the highest rate of previews that clients ask for of a stream."""

    width: int
    fps: float


class Sink(Protocol):
    """The receiver of what worker and capture threads produce; every method may be called from any thread and never blocks."""

    def decided(self, events: Sequence[Decided]) -> None:
        """Events of one stream, in the order they were decided; evidence comes with the first event it belongs to, once."""

    def status(self, status: SourceStatus) -> None:
        """A source's state, when it changed and once a second."""

    def signal(self, signal: Signal) -> None:
        """About ten a second for each stream."""

    def activity(self, acted: Acted) -> None:
        """A few a second at most."""

    def preview(self, preview: Preview) -> None:
        """A preview that a client asked for."""

    def removed(self, stream: str) -> None:
        """A stream (a browser's camera) was removed."""

    def wanted_preview(self, stream: str) -> WantedPreview | None:
        """The preview of a stream that clients ask for now; None where none does."""
