"""Events, markers and the motion trace to the Lab Streaming Layer, with the time at which each frame was captured.

Each source has up to three streams, which are there from its first status on, so that a recorder can choose them beforehand:

    NAME SOURCE markers   Markers, text     onset/micro/surprise/face0, apex/..., offset/..., each at its own time
    NAME SOURCE events    Events, text      the JSON of each final expression, at its onset
    NAME SOURCE motion    Motion, float32   face, loudness (1 is the spotter's threshold), moved_px: a sample per frame and face

A time is LSL's local clock at the capture of the frame, not at sending (`stream.sources.capture_clock`), less the cameras' own
delay where the settings have one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import BackendError, OutputError, first_line
from engine.text import plain
from engine.types import Event, Mark
from stream.messages import Acted, Decided, Signal
from stream.outlets.identifier import identifier
from stream.outlets.outlet import Outlet, OutletContext, OutletStatus
from stream.outlets.settings import LslSettings
from stream.protocol import Message
from stream.queues import BoundedQueue, ClosedError

if TYPE_CHECKING:
    from pylsl import StreamInfo, StreamOutlet

QUEUED = 10_000
"""Messages that may wait for the thread; beyond them the oldest are dropped."""
LINGER_S = 0.1
"""liblsl sends on threads of its own, drops what it has not sent when a stream ends, and does not say when it has."""
READINGS = 5
"""Of the two clocks, for each time; 2 microseconds together."""
CHANNELS = {
    "markers": (("marker", "", "string"),),
    "events": (("event", "", "string"),),
    "motion": (("face", "", "float32"), ("loudness", "thresholds", "float32"), ("moved", "px", "float32")),
}
"""Of each stream its channels: label, unit, format."""
TYPES = {"markers": "Markers", "events": "Events", "motion": "Motion"}


def marker(moment: str, event: Event) -> str:
    """A marker in words with slashes between, by which analysis programs (MNE) select: apex/micro/surprise/face0."""
    words = [moment, event.kind or event.state, event.label, f"face{event.face}"]
    return "/".join(words if event.state == "final" else ["provisional", moment, event.label, f"face{event.face}"])


def clock_difference(clock: Callable[[], float]) -> float:
    """What another clock shows more than `time.monotonic()`, seconds: of some readings the one that was interrupted least."""
    readings = [(time.monotonic(), clock(), time.monotonic()) for _ in range(READINGS)]
    before, shown, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return shown - (before + after) / 2


class LslOutlet(Outlet):
    """Streams to whoever records them in the network."""

    def __init__(self, settings: LslSettings, context: OutletContext) -> None:
        super().__init__("lsl", f"streams {settings.name} SOURCE ..., which every recorder in the network can see")
        self._settings, self._context = settings, context
        self._lsl: Any = None  # pylsl, once the thread has loaded it
        self._queue: BoundedQueue[Message] = BoundedQueue(QUEUED, drop_oldest=True)
        self._streams: dict[str, dict[str, StreamOutlet]] = {}  # by source and sort

    def offer(self, message: Message) -> None:
        """Take what becomes markers and samples, and the first status of each source."""
        wanted = {
            "expression": message.body.get("seq") is not None or self._settings.provisional,
            "activity": self._settings.activities,
            "signal": self._settings.motion,
            "status": message.stream not in self._streams,
            "removed": True,
        }
        if wanted.get(message.type, False):
            with contextlib.suppress(ClosedError):
                self._queue.put(message)

    @property
    def status(self) -> OutletStatus:
        """The current status; from any thread."""
        return replace(super().status, dropped=self._queue.dropped)

    def wake(self) -> None:
        """End the queue."""
        self._queue.close()

    def run(self) -> None:
        """Send what is queued until the queue ends."""
        self._lsl = _library()
        for source in self._context.sources:
            self._open(source)
        self.report("working")
        try:
            for message in self._queue:
                self._send(message)
            if any(stream.have_consumers() for streams in self._streams.values() for stream in streams.values()):
                time.sleep(LINGER_S)
        finally:
            self._streams.clear()

    def _send(self, message: Message) -> None:
        source, origin = message.stream or "", message.origin
        if message.type == "removed":
            self._streams.pop(source, None)
            return
        streams = self._open(source)
        if isinstance(origin, Decided):
            self._send_event(streams, message, origin)
        elif isinstance(origin, Acted):
            activity = origin.activity
            for moment, mark in (("start", activity.start), ("end", activity.end)):
                self._push(streams, "markers", f"{moment}/{activity.kind}/face{activity.face}", self._time(mark, origin))
        elif isinstance(origin, Signal):
            self._send_motion(streams, origin)

    def _send_event(self, streams: dict[str, StreamOutlet], message: Message, decided: Decided) -> None:
        event = decided.event
        marks = {"onset": event.onset, "apex": event.apex, **({"offset": event.offset} if event.offset else {})}
        times = {moment: self._time(mark, decided) for moment, mark in marks.items()}
        for moment, at in times.items():
            self._push(streams, "markers", marker(moment, event), at)
        if event.state == "final":
            fields = {**message.body, "lsl": {moment: round(at, 6) for moment, at in times.items()}}
            self._push(streams, "events", json.dumps(fields, ensure_ascii=False), times["onset"])
            self.count(sent=1)

    def _send_motion(self, streams: dict[str, StreamOutlet], signal: Signal) -> None:
        samples = sorted(
            (t, float(trace.face), loudness, moved)
            for trace in signal.faces
            for t, loudness, moved in zip(trace.t, trace.loudness, trace.moved_px, strict=True)
        )
        if samples and "motion" in streams:
            shift = signal.clock_offset + self._clock_difference()
            streams["motion"].push_chunk([list(values) for _, *values in samples], [t + shift for t, *_ in samples])

    @staticmethod
    def _push(streams: dict[str, StreamOutlet], sort: str, text: str, at: float) -> None:
        if sort in streams:
            streams[sort].push_sample([text], at)

    def _time(self, mark: Mark, origin: Decided | Acted) -> float:
        """LSL's local clock when the frame of mark was captured."""
        return mark.t + origin.clock_offset + self._clock_difference()

    def _clock_difference(self) -> float:
        """What to add to `time.monotonic()` for the time to send, seconds."""
        return clock_difference(self._lsl.local_clock) - self._settings.delay_ms / 1000

    def _open(self, source: str) -> dict[str, StreamOutlet]:
        """The streams of a source, made where there are none yet. Raises OutputError."""
        if source not in self._streams:
            wanted = {"markers": self._settings.markers, "events": self._settings.events, "motion": self._settings.motion}
            try:
                made = {sort: self._lsl.StreamOutlet(self._info(source, sort)) for sort, on in wanted.items() if on}
            except (RuntimeError, OSError) as error:
                raise OutputError(f"the streams of {source} cannot be made: {first_line(error)}") from error
            self._streams[source] = made
        return self._streams[source]

    def _info(self, source: str, sort: str) -> StreamInfo:
        """The description of a stream for recorders, as https://github.com/sccn/xdf/wiki/Meta-Data names it."""
        channels, context = CHANNELS[sort], self._context
        info = self._lsl.StreamInfo(
            f"{self._settings.name} {source} {sort}",
            TYPES[sort],
            len(channels),
            self._lsl.IRREGULAR_RATE,
            "float32" if sort == "motion" else "string",
            f"apexstream-{context.store}-{identifier(source)}-{sort}",
        )
        description = info.desc()
        description.append_child_value("manufacturer", "apexstream")
        listed = description.append_child("channels")
        for label, unit, type_ in channels:
            channel = listed.append_child("channel")
            for name, value in (("label", label), ("unit", unit), ("type", type_)):
                channel.append_child_value(name, value)
        acquisition = description.append_child("acquisition")
        for name, value in (("software", f"apexstream {context.version}"), ("network", context.model), ("source", source)):
            acquisition.append_child_value(name, plain(value))
        synchronization = description.append_child("synchronization")
        synchronization.append_child_value("time_source", "capture of the video frame, from the source's clock and its arrival")
        synchronization.append_child_value("delay_subtracted_ms", f"{self._settings.delay_ms:g}")
        synchronization.append_child_value("can_drop_samples", "true")
        return info


def _library() -> Any:
    """pylsl. Raises BackendError where it or its library is missing."""
    try:
        import pylsl
    except ImportError as error:
        raise BackendError("pylsl is not installed; run pip install 'apexstream[lsl]'") from error
    except (OSError, RuntimeError) as error:
        raise BackendError(f"pylsl does not work here: {first_line(error)}") from error
    return pylsl
