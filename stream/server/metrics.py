"""The service's metrics, in Prometheus' text format, in a registry of its own.

Label values are bounded: streams by number (every camera of a browser is "browser", those beyond MAX_STREAMS are "other"), all
else by the sets below. No address, credential or detail text becomes a label.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from stream.messages import NodeStatus, SourceState, SourceStatus
from stream.outlets.outlet import OutletStatus
from stream.server.access import REASONS

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_STREAMS = 64
STATES = get_args(SourceState)
LABELS = frozenset({"negative", "positive", "surprise", "uncertain"})
KINDS = frozenset({"micro", "macro"})
OUTCOMES = frozenset({"taken", "dropped", "broken"})
LATENCY_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
PROCESSING_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.25, 1.0)


class Metrics(Collector):
    """All metrics of a service; every method may be called from any thread.

    Attributes that are metrics are counted up by their owners, or read from them at each scrape (`set_function`); outlets
    returns the current status of each outlet, nodes that of each node of a fleet.
    """

    def __init__(self) -> None:
        self.registry = at = CollectorRegistry(auto_describe=True)
        self._lock = threading.Lock()  # guards _latest and _names
        self._latest: dict[str, SourceStatus] = {}
        self._names: set[str] = set()
        self.outlets: Callable[[], list[OutletStatus]] = list
        self.nodes: Callable[[], list[NodeStatus]] = list
        at.register(self)
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
        self.subscribers = Gauge("apexstream_subscribers", "Clients that get events.", registry=at)
        self.connections = Gauge("apexstream_connections", "Open connections of every sort.", registry=at)
        self.dropped = Counter("apexstream_subscribers_dropped", "Clients disconnected for not reading.", registry=at)
        self.replayed = Counter("apexstream_events_replayed", "Stored events sent again to clients that asked.", registry=at)
        self._refusals = Counter("apexstream_refusals", "Requests and messages refused, by reason.", ["reason"], registry=at)
        self._pictures = Counter("apexstream_camera_frames", "Pictures from browsers' cameras.", ["outcome"], registry=at)
        self.store_seconds = Histogram(
            "apexstream_store_seconds", "Storing a batch of final events, durably.", buckets=LATENCY_S, registry=at
        )
        self.store_bytes = Gauge("apexstream_store_bytes", "Size of the event store on disk.", registry=at)
        self.damaged = Gauge("apexstream_store_damaged", "Stored events that cannot be read and were left out.", registry=at)
        self.problem = Gauge("apexstream_store_problem", "1 while events cannot be stored.", registry=at)
        self.seq = Gauge("apexstream_store_seq", "Number of the last stored event.", registry=at)

    def status(self, status: SourceStatus) -> None:
        """A source's status; the latest one is shown."""
        with self._lock:
            if status.stream in self._latest or len(self._latest) < MAX_STREAMS:
                self._latest[status.stream] = status

    def removed(self, stream: str) -> None:
        """A stream was removed: its gauges go, its counters stay."""
        name = self.name_of(stream)
        with self._lock:
            self._latest.pop(stream, None)
            browsers = any(status.kind == "browser" for status in self._latest.values())
        if name != "browser" or not browsers:
            with contextlib.suppress(KeyError):  # no frame of it was analysed
                self._queue.remove(name)

    def event(self, message: Mapping[str, Any], *, browser: bool = False) -> None:
        """An expression message is sent: counted if final, and its latency_ms observed.

        browser: it came from a browser's camera, which may be removed by now.
        """
        if message["state"] == "final":
            name = "browser" if browser else self.name_of(message["stream"])
            self._events.labels(name, _one_of(message["kind"], KINDS), _one_of(message["label"], LABELS)).inc()
        if (latency_ms := message.get("latency_ms")) is not None:
            self._latency.labels(message["state"]).observe(latency_ms / 1000)

    def processed(self, stream: str, seconds: float, waiting: int) -> None:
        """A frame was analysed in `seconds`, and `waiting` frames wait."""
        name = self.name_of(stream)
        self._processing.labels(name).observe(seconds)
        self._queue.labels(name).set(waiting)

    def refused(self, reason: str) -> None:
        """A request or message was refused; reason is one of `access.REASONS`."""
        self._refusals.labels(_one_of(reason, REASONS)).inc()

    def picture(self, outcome: str) -> None:
        """A picture from a browser's camera: taken, dropped or broken."""
        self._pictures.labels(_one_of(outcome, OUTCOMES)).inc()

    def name_of(self, stream: str) -> str:
        """The value of the label "stream": "browser", the name, or "other" for all but the first MAX_STREAMS names."""
        with self._lock:
            if stream in self._latest and self._latest[stream].kind == "browser":
                return "browser"
            if stream not in self._names and len(self._names) >= MAX_STREAMS:
                return "other"
            self._names.add(stream)
            return stream

    def render(self) -> bytes:
        """Everything in Prometheus' text format, to be sent as CONTENT_TYPE."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """The latest status of each source as samples; sources count drops and reconnects themselves."""
        groups: dict[str, list[SourceStatus]] = {}
        with self._lock:
            for status in self._latest.values():
                groups.setdefault("browser" if status.kind == "browser" else status.stream, []).append(status)
        state = GaugeMetricFamily("apexstream_source_state", "1 for the state a source is in.", labels=["stream", "state"])
        sums: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            "fps": GaugeMetricFamily("apexstream_source_fps", "Frames a second from a source.", labels=["stream"]),
            "frames": CounterMetricFamily("apexstream_source_frames", "Frames from a source.", labels=["stream"]),
            "drops": CounterMetricFamily("apexstream_source_drops", "Frames dropped before analysis.", labels=["stream"]),
            "reconnects": CounterMetricFamily(
                "apexstream_source_reconnects", "Times a source was found again.", labels=["stream"]
            ),
        }
        for name, group in groups.items():
            for key, family in sums.items():
                family.add_metric([name], sum(getattr(status, key) for status in group))
            for each in STATES:
                state.add_metric([name, each], sum(status.state == each for status in group))
        return [state, *sums.values(), *self._of_outlets(), *self._of_nodes()]

    def _of_nodes(self) -> Iterable[Metric]:
        nodes = self.nodes()
        live = GaugeMetricFamily("apexstream_node_live", "1 while a node of the fleet is live.", labels=["node"])
        for node in nodes:
            live.add_metric([node.name], node.state == "live")
        return [live] if nodes else []

    def _of_outlets(self) -> Iterable[Metric]:
        working = GaugeMetricFamily("apexstream_outlet_working", "1 while an outlet works.", labels=["outlet"])
        sent = CounterMetricFamily("apexstream_outlet_events", "Expressions that an outlet delivered.", labels=["outlet"])
        dropped = CounterMetricFamily("apexstream_outlet_dropped", "Messages that an outlet dropped.", labels=["outlet"])
        for outlet in self.outlets():
            working.add_metric([outlet.name], outlet.state == "working")
            sent.add_metric([outlet.name], outlet.sent)
            dropped.add_metric([outlet.name], outlet.dropped)
        return working, sent, dropped


def _one_of(value: object, known: Collection[str]) -> str:
    return str(value) if value in known else "other"
