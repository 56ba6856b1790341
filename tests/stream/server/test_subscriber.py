from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.protocol import State

import stream.server.subscriber
from stream import protocol as wire
from stream.messages import Preview, PreviewWish
from stream.protocol import PreviewRequest, Subscribe
from stream.server.subscriber import SocketSubscriber, preview_wishes

PREVIEW = wire.preview(Preview("lobby", {}, b"jpeg"))


class FakeConnection:
    """A connection of which so many bytes wait."""

    def __init__(self) -> None:
        self.subscription = Subscribe()
        self.bytes = 0
        self.protocol: Any = type("Protocol", (), {"state": State.OPEN})()
        self.write = lambda message: None

    def waiting(self) -> int:
        return self.bytes

    async def drain(self) -> None:
        pass


def subscriber(*requests: PreviewRequest) -> SocketSubscriber:
    made = SocketSubscriber(FakeConnection())
    made.previews = {request.stream: request for request in requests}
    return made


def request(stream: str, fps: float = 10.0, width: int = 320) -> PreviewRequest:
    return PreviewRequest(type="preview", stream=stream, on=True, fps=fps, width=width)


def test_previews_are_wanted_at_the_rate_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(stream.server.subscriber.time, "monotonic", lambda: now[0])
    one = subscriber(request("lobby", fps=10))
    wanted = 0
    for _ in range(300):  # ten seconds at 30 a second
        wanted += one.wants(PREVIEW)
        now[0] += 1 / 30
    assert 99 <= wanted <= 101
    assert not subscriber().wants(PREVIEW), "it did not ask for previews"


def test_no_preview_is_wanted_while_bytes_wait() -> None:
    one = subscriber(request("lobby"))
    one.connection.bytes = 1
    assert not one.wants(PREVIEW)
    one.connection.bytes = 0
    assert one.wants(PREVIEW)


def test_a_closed_connection_ends_a_replay() -> None:
    one = subscriber()
    asyncio.run(one.drained())
    one.connection.protocol.state = State.CLOSED
    with pytest.raises(ConnectionError):
        asyncio.run(one.drained())


def test_the_largest_and_the_most_frequent_preview_is_made() -> None:
    both = preview_wishes([subscriber(request("lobby", 5.0, 640), request("desk")), subscriber(request("lobby", 12.0, 160))])
    assert both == {"lobby": PreviewWish(640, 12.0), "desk": PreviewWish(320, 10.0)}
