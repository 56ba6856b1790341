"""The service's metrics, in Prometheus' text format, in a registry of its own.

Label values are bounded: streams by number (every camera of a browser is "browser", those beyond MOST_STREAMS are "other"), all
else by the sets below. No address, credential or detail text becomes a label.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from stream.messages import SourceStatus
from stream.server.access import REASONS

CONTENT_TYPE = CONTENT_TYPE_LATEST
MOST_STREAMS = 64
STATES = ("starting", "live", "stalled", "reconnecting", "ended")
LABELS = frozenset({"negative", "positive", "surprise", "uncertain"})
KINDS = frozenset({"micro", "macro"})
LATENCY_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
PROCESSING_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """All metrics of a service; every method may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._sources = _Sources()
        self.registry.register(self._sources)
        self._lock = threading.Lock()  # guards _names
        self._names: set[str] = set()
        at = self.registry
        self._events = Counter("apexstream_events", "Final events by what they are.", ["stream", "kind", "label"], registry=at)
        self._latency = Histogram(
            "apexstream_event_latency_seconds",
            "From the arrival of the frame that decided an event to the event being sent.",
            ["state"],
            buckets=LATENCY_S,
            registry=at,
        )
        self._processing = Histogram(
            "apexstream_frame_seconds", "Analysis of one frame.", ["stream"], buckets=PROCESSING_S, registry=at
        )
        self._queue = Gauge("apexstream_queue_frames", "Frames that wait for analysis.", ["stream"], registry=at)
        self._subscribers = Gauge("apexstream_subscribers", "Clients that get events.", registry=at)
        self._connections = Gauge("apexstream_connections", "Open connections of every sort.", registry=at)
        self._dropped = Counter("apexstream_subscribers_dropped", "Clients disconnected for not reading.", registry=at)
        self._replayed = Counter("apexstream_events_replayed", "Stored events sent again to clients that asked.", registry=at)
        self._refusals = Counter("apexstream_refusals", "Requests and messages refused, by reason.", ["reason"], registry=at)
        self._pictures = Counter("apexstream_camera_frames", "Pictures from browsers' cameras.", ["outcome"], registry=at)
        self._storing = Histogram(
            "apexstream_store_seconds", "Storing a batch of final events, durably.", buckets=LATENCY_S, registry=at
        )
        self._stored = Gauge("apexstream_store_bytes", "Size of the event store on disk.", registry=at)
        self._damaged = Gauge("apexstream_store_damaged", "Stored events that cannot be read and were left out.", registry=at)
        self._problem = Gauge("apexstream_store_problem", "1 while events cannot be stored.", registry=at)
        self._seq = Gauge("apexstream_store_seq", "Number of the last stored event.", registry=at)

    def status(self, status: SourceStatus) -> None:
        """A source's status; the latest one is shown."""
        self._sources.keep(status)

    def removed(self, stream: str) -> None:
        """A stream was removed: its gauges go, its counters stay."""
        name = self.name_of(stream)
        self._sources.drop(stream)
        if name != "browser" or not self._sources.has_browsers:
            with contextlib.suppress(KeyError):  # no frame of it was analysed
                self._queue.remove(name)

    def event(self, message: Mapping[str, Any], *, browser: bool = False) -> None:
        """An expression message is sent: counted if final, and its latency_ms observed.

        browser: it came from a browser's camera, which may be removed by now.
        """
        final = message.get("state") == "final"
        if final:
            kind, label = (_one_of(message.get(key), known) for key, known in (("kind", KINDS), ("label", LABELS)))
            name = "browser" if browser else self.name_of(str(message.get("stream")))
            self._events.labels(name, kind, label).inc()
        latency = message.get("latency_ms")
        if isinstance(latency, int | float):
            self._latency.labels("final" if final else "provisional").observe(latency / 1000)

    def processed(self, stream: str, seconds: float, waiting: int) -> None:
        """A frame was analysed in `seconds`, and `waiting` frames wait."""
        name = self.name_of(stream)
        self._processing.labels(name).observe(seconds)
        self._queue.labels(name).set(waiting)

    def count_connections(self, connections: Callable[[], float], subscribers: Callable[[], float]) -> None:
        """Read the numbers of connections and subscribers from these at each scrape."""
        self._connections.set_function(connections)
        self._subscribers.set_function(subscribers)

    def measure_store(
        self, *, size: Callable[[], float], seq: Callable[[], float], problem: Callable[[], bool], damaged: Callable[[], float]
    ) -> None:
        """Read from these at each scrape: the store's size in bytes, its last seq, whether it fails, its unreadable events."""
        self._stored.set_function(size)
        self._seq.set_function(seq)
        self._problem.set_function(problem)
        self._damaged.set_function(damaged)

    def stored(self, events: int, seconds: float) -> None:
        """A batch of events was stored in `seconds`."""
        del events  # counted one by one when they are sent
        self._storing.observe(seconds)

    def dropped(self) -> None:
        """A client that did not read was disconnected."""
        self._dropped.inc()

    def replayed(self, events: int) -> None:
        """Stored events were sent again."""
        self._replayed.inc(events)

    def refused(self, reason: str) -> None:
        """A request or message was refused; reason is one of `access.REASONS`."""
        self._refusals.labels(_one_of(reason, REASONS)).inc()

    def picture(self, outcome: str) -> None:
        """A picture from a browser's camera: taken, dropped or broken."""
        self._pictures.labels(_one_of(outcome, ("taken", "dropped", "broken"))).inc()

    def name_of(self, stream: str) -> str:
        """The value of the label "stream": "browser", the name, or "other" for all but the first MOST_STREAMS names."""
        if self._sources.is_browser(stream):
            return "browser"
        with self._lock:
            if stream not in self._names and len(self._names) >= MOST_STREAMS:
                return "other"
            self._names.add(stream)
            return stream

    def render(self) -> bytes:
        """Everything in Prometheus' text format, to be sent as CONTENT_TYPE."""
        return generate_latest(self.registry)


class _Sources(Collector):
    """The latest status of each source, turned into samples at each scrape; sources count drops and reconnects themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _latest
        self._latest: dict[str, SourceStatus] = {}

    def keep(self, status: SourceStatus) -> None:
        with self._lock:
            if status.stream in self._latest or len(self._latest) < MOST_STREAMS:
                self._latest[status.stream] = status

    def drop(self, stream: str) -> None:
        with self._lock:
            self._latest.pop(stream, None)

    def is_browser(self, stream: str) -> bool:
        with self._lock:
            status = self._latest.get(stream)
        return status is not None and status.kind == "browser"

    @property
    def has_browsers(self) -> bool:
        """Whether any browser's camera is connected."""
        with self._lock:
            return any(status.kind == "browser" for status in self._latest.values())

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            latest = list(self._latest.values())
        fps = GaugeMetricFamily("apexstream_source_fps", "Frames a second from a source.", labels=["stream"])
        state = GaugeMetricFamily("apexstream_source_state", "1 for the state a source is in.", labels=["stream", "state"])
        frames = CounterMetricFamily("apexstream_source_frames", "Frames from a source.", labels=["stream"])
        drops = CounterMetricFamily("apexstream_source_drops", "Frames dropped before analysis.", labels=["stream"])
        reconnects = CounterMetricFamily("apexstream_source_reconnects", "Times a source was found again.", labels=["stream"])
        for name, group in _by_name(latest).items():
            fps.add_metric([name], sum(status.fps for status in group))
            frames.add_metric([name], sum(status.frames for status in group))
            drops.add_metric([name], sum(status.drops for status in group))
            reconnects.add_metric([name], sum(status.reconnects for status in group))
            for each in STATES:
                state.add_metric([name, each], sum(status.state == each for status in group))
        return [fps, state, frames, drops, reconnects]


def _by_name(latest: Iterable[SourceStatus]) -> dict[str, list[SourceStatus]]:
    groups: dict[str, list[SourceStatus]] = {}
    for status in latest:
        groups.setdefault("browser" if status.kind == "browser" else status.stream, []).append(status)
    return groups


def _one_of(value: object, known: Collection[str]) -> str:
    return str(value) if value in known else "other"
