from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.errors import OutputError
from stream.outlets import running as running_module
from stream.outlets.outlet import Outlet
from stream.outlets.running import RunningOutlets, from_thread
from stream.protocol import Message
from tests.outlets import status


class Keeping(Outlet):
    """Keeps what it is offered, or fails."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        super().__init__(name, f"to {name}.example")
        self.got: list[Message] = []
        self.fails, self.ended = fails, False

    def offer(self, message: Message) -> None:
        if self.fails:
            raise ValueError("a defect")
        self.got.append(message)

    def wake(self) -> None:
        self.ended = True

    def run(self) -> None:
        self.report("working")


def test_each_is_offered_every_message_and_a_defect_stops_that_outlet_alone(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Keeping("bad", fails=True), Keeping("good")
    outlets = RunningOutlets([bad, good])
    messages = [status(), status("cellar")]
    for message in messages:
        outlets.offer(message)
    assert good.got == messages
    assert caplog.text.count("bad: off: unexpected error (ValueError: a defect)") == 1
    assert [(one.name, one.state) for one in outlets.statuses] == [("bad", "off"), ("good", "starting")]


def test_all_are_started_and_stopped() -> None:
    made = [Keeping("one"), Keeping("two")]
    outlets = RunningOutlets(list(made))
    outlets.start()
    assert outlets.shown == ["one: to one.example", "two: to two.example"]
    assert outlets.stop(30.0) and all(one.ended for one in made)


def test_stored_events_are_read_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stored(since: int, **bounds: Any) -> list[dict[str, Any]]:
        if since == 1:
            raise ConnectionAbortedError("the service ends")
        if since == 2:
            raise OutputError("no disk")
        if since == 3:
            await asyncio.Event().wait()
        return [{"seq": since + 1, **bounds}]

    async def main() -> None:
        read = from_thread(asyncio.get_running_loop(), stored)
        assert await asyncio.to_thread(read, 0, 5) == [{"seq": 1, "limit": 5}]
        with pytest.raises(OutputError, match="the service is ending"):
            await asyncio.to_thread(read, 1, 5)
        with pytest.raises(OutputError, match="no disk"):
            await asyncio.to_thread(read, 2, 5)
        monkeypatch.setattr(running_module, "READ_S", 0.01)
        with pytest.raises(OutputError, match=r"could not be read within 0\.01 s"):
            await asyncio.to_thread(read, 3, 5)

    asyncio.run(main())


def test_after_the_service_has_ended_reading_is_an_error() -> None:
    async def stored(since: int, **bounds: Any) -> list[dict[str, Any]]:
        return []

    loop = asyncio.new_event_loop()
    read = from_thread(loop, stored)
    loop.close()
    with pytest.raises(OutputError, match="the service is ending"):
        read(0, 5)
