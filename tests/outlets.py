"""What tests of outlets share: what an outlet knows of the service, messages as the hub makes them, waiting for a state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from stream import protocol
from stream.events.query import numbered
from stream.events.store import Store
from stream.messages import Decided, FaceTrace, Signal, SourceStatus
from stream.outlets.outlet import Outlet, OutletContext, OutletStatus
from stream.protocol import Message
from tests.events import an_event, read
from tests.live import PATIENCE_S


def context(store: Store, sources: tuple[str, ...] = ("lobby",)) -> OutletContext:
    return OutletContext(
        folder=store.path.parent,
        store=store.identity,
        seq=store.last,
        stored=lambda since, limit: read(store, since, limit=limit),
        model="ahmsa-3db@sha256:0123456789ab",
        version="0.1.0",
        sources=sources,
    )


def final(store: Store, number: int, *, clock_offset: float = 0.0, age_s: float = 0.0, **changes: Any) -> Message:
    """The message of a final event that has been stored now, emitted age_s seconds ago."""
    decided = Decided(an_event(number, **changes), time.monotonic(), clock_offset=clock_offset)
    event = protocol.stamped(decided, monotonic=time.monotonic(), now=time.time() - age_s)
    (seq,) = store.append([event])
    return protocol.expression(numbered(event, seq), origin=decided)


def status(stream: str = "lobby", state: Any = "live") -> Message:
    return protocol.status(SourceStatus(stream, "webcam", state))


def signal(*doing: Any, stream: str = "lobby", clock_offset: float = 0.0) -> Message:
    """A face's motion in three frames."""
    trace = FaceTrace(2, (1.0, 1.04, 1.08), (0.1, 0.5, 2.0), (0.01, 0.02, 0.3), dict.fromkeys(doing, 0.5))
    return protocol.signal(Signal(stream, 1.08, time.time(), (trace,), clock_offset))


@contextlib.contextmanager
def started(outlet: Outlet) -> Iterator[Outlet]:
    outlet.start()
    try:
        yield outlet
    finally:
        outlet.stop()
        assert outlet.join(PATIENCE_S), "its thread ends"


def reaches(outlet: Outlet, true: Callable[[OutletStatus], bool], what: str) -> OutletStatus:
    """The status once something is true of it."""
    until = time.monotonic() + PATIENCE_S
    while not true(outlet.status):
        assert time.monotonic() < until, f"waited {PATIENCE_S:.0f} s for {what}: {outlet.status}"
        time.sleep(0.005)
    return outlet.status
