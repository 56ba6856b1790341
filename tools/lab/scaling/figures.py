"""The figures that the simulation and the tables start from, each from a record of a measurement.

scaling-inputs.json             python -m lab.scaling measure
scaling-hub.json                python -m lab.scaling hub
bench.json                      apexstream bench
live-sources-one-process.json   apexstream bench --only live --processes 0, ten and twelve sources in one process
live-subscribers-one.json       python -m tests.soak.subscribers, one subscriber, 100 events a second
live-subscribers-fast.json      the same, 1,000 events a second
live-subscribers-idle.json      the same, a thousand subscribers, 20 events a second
live-page.json                  python -m tests.soak.page, a real Chromium on the page
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

F64 = NDArray[np.float64]

LIVE_SOURCES, LIVE_FPS = "live sources, 640x480 at 30 fps, held", 30.0
SATURATED_BUSY = (1.50, 1.34)
"""Cores that one process kept busy while it dropped frames, ten and twelve sources: docs/performance.md, live sources in
several processes. It could use no more, as its threads took turns at Python's lock."""


@dataclass(frozen=True)
class Figures:
    """What was measured, from the records in a folder. Times are milliseconds of a core unless a name says otherwise."""

    records: Path

    def _read(self, name: str) -> Any:
        path = self.records / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read; docs/scaling.md names the command that writes it") from error

    @cached_property
    def inputs(self) -> Any:
        """scaling-inputs.json."""
        return self._read("scaling-inputs.json")

    @cached_property
    def _bench(self) -> dict[str, Any]:
        return {row["name"]: row for row in self._read("bench.json")["rows"]}

    @cached_property
    def live_frame_ms(self) -> float:
        """A frame of a live source of 640x480: cores busy over frames a second, of the most sources that were held."""
        row = self._bench[LIVE_SOURCES]
        return 1000 * float(row["note"].split()[0]) / (float(row["value"]) * LIVE_FPS)

    @cached_property
    def live_sources(self) -> int:
        """How many sources of 640x480 at 30 frames/s two cores hold."""
        return int(self._bench[LIVE_SOURCES]["value"])

    @cached_property
    def analyze_fps(self) -> float:
        """Frames a second of `apexstream analyze`, 640x360, one video at a time, from the program's start to its end."""
        return float(self._bench["whole analyze, 640x360"]["value"])

    @cached_property
    def analyze_frame_ms(self) -> float:
        """A frame of that, all threads."""
        return float(self._bench["processor's time"]["value"])

    @cached_property
    def frame_quantiles_ms(self) -> F64:
        """Quantiles 0, .01, ... 1 of a live frame: measured frame by frame, the mean scaled to `live_frame_ms`, which has
        everything around the analysis in it."""
        shape = np.array(self.inputs["frame_ms"]["quantiles"])
        return shape * self.live_frame_ms / float(self.inputs["frame_ms"]["mean"])

    @cached_property
    def python_share(self) -> float:
        """The share of a frame's time in which no other thread of its process runs Python: a process that is saturated by its
        lock keeps 1 / share cores busy."""
        return float(np.mean([1 / busy for busy in SATURATED_BUSY]))

    def _subscribers_ms(self, record: str) -> tuple[float, int]:
        """Milliseconds of the service an event, and subscribers, of a soak."""
        first = self._read(record)["rounds"][0]
        return 1000 * float(first["service_cpu"]) / float(first["rate"]), int(first["readers"])

    @cached_property
    def hub_event_ms(self) -> float:
        """An event at the hub with one subscriber, of many that are stored at once."""
        return float(self.inputs["hub"]["event_ms"])

    @cached_property
    def service_event_ms(self) -> float:
        """The same at the live service: 1,000 events a second, several of them stored at once."""
        return self._subscribers_ms("live-subscribers-fast.json")[0]

    @cached_property
    def hub_batch_ms(self) -> float:
        """What an event that is stored alone takes more, at the live service, whose store is the hub's."""
        return self._subscribers_ms("live-subscribers-one.json")[0] - self.service_event_ms

    @cached_property
    def hub_subscriber_ms(self) -> float:
        """One more subscriber's share of an event."""
        each, readers = self._subscribers_ms("live-subscribers-idle.json")
        return (each - self.service_event_ms - self.hub_batch_ms) / (readers - 1)

    @cached_property
    def client_event_ms(self) -> float:
        """An event at one of the thousand subscribers, which share a process."""
        many = self._read("live-subscribers-idle.json")["rounds"][0]
        return 1000 * float(many["clients_cpu"]) / float(many["rate"]) / int(many["readers"])

    @cached_property
    def page_event_ms(self) -> float:
        """An event at the page in Chromium, of many at once."""
        return float(self._read("live-page.json")["ms_per_event"])

    @cached_property
    def publish_ms(self) -> float:
        """A motion trace passed on to one listener, at the Redis server."""
        return float(self.inputs["redis"]["publish_ms"])

    @cached_property
    def hub_signal_ms(self) -> float:
        """A motion trace at the hub, with one subscriber."""
        return float(self.inputs["hub"]["signal_ms"])

    @cached_property
    def results_bytes_per_hour(self) -> float:
        """What `apexstream analyze` writes for an hour of video."""
        return float(self.inputs["results_bytes_per_hour"])

    @cached_property
    def signal_bytes(self) -> int:
        """A motion trace of one face as JSON."""
        return int(self.inputs["signal_bytes"])

    @cached_property
    def commit_ms(self) -> F64:
        """Quantiles 0, .01, ... 1 of storing one event durably, by the clock."""
        return np.array(self.inputs["store"]["one_event_quantiles_ms"])

    @cached_property
    def xadd_ms(self) -> float:
        """An event appended, at the Redis server, one command at a time."""
        return float(self.inputs["redis"]["xadd_ms"])

    def read_ms(self, streams: int) -> tuple[float, float]:
        """The hub's read of the streams of that many nodes, one of which has an event: at the Redis server, and at the hub."""
        measured = self.inputs["redis"]["xread_by_streams"]
        at = [int(count) for count in measured]
        server, hub = (
            float(np.interp(streams, at, [one[side] for one in measured.values()])) for side in ("server_ms", "client_ms")
        )
        return server, hub

    def states_cores(self, nodes: int) -> tuple[float, float]:
        """Cores that the states of that many nodes with ten cameras each keep busy, while nothing happens: of the Redis server,
        and of the hub."""
        rows = [row for row in self._read("scaling-hub.json")["fleets"] if not row["events_a_second"]]
        at = [row["nodes"] for row in rows]
        server, hub = (float(np.interp(nodes, at, [row[name] for row in rows])) for name in ("redis_cores", "hub_cores"))
        return server, hub

    @cached_property
    def event_bytes(self) -> int:
        """An event as JSON."""
        return int(self.inputs["event_bytes"])

    @cached_property
    def redis_event_bytes(self) -> float:
        """An event in Redis' memory."""
        return float(self.inputs["redis"]["memory_bytes_per_event"])


def sampled(quantiles: F64, generator: np.random.Generator, count: int) -> F64:
    """count independent draws from a distribution that its evenly spaced quantiles describe, linear between them."""
    return np.interp(generator.random(count), np.linspace(0, 1, len(quantiles)), quantiles)
