from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError, OutputError
from engine.types import Activity, Mark
from stream.analysis.session import Session
from stream.events.evidence import Shelf
from stream.events.hub import Hub
from stream.events.store import Store
from stream.mailbox import Mailbox
from stream.messages import Acted, Arrival, Decided, Preview, PreviewWish, Signal, SourceStatus
from stream.protocol import Message
from stream.settings import LiveSettings
from stream.wiring import Cameras, KnownFacts, LoopSink, bring
from tests.events import an_event, decided, evidence, stored
from tests.live import PATIENCE_S, Collected


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await test()

    asyncio.run(whole())


async def on_a_thread(act: Callable[[], Any]) -> None:
    """Have a thread do it while the loop stands still, as behind a busy moment."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "a sink never waits for the loop"


class Wired:
    """A sink between a thread and a hub, and what came out behind the hub."""

    def __init__(self, hub: Hub, told: list[str]) -> None:
        self.hub, self.told, self.shelf = hub, told, Shelf(5)
        self.sink = LoopSink(
            asyncio.get_running_loop(),
            hub,
            self.shelf,
            heard=hub.post,
            gone=hub.remove,
            wish=lambda stream: PreviewWish(160, 10.0) if stream == "lobby" else None,
        )

    async def until(self, last: str) -> None:
        while last not in self.told:
            await asyncio.sleep(0.002)


@asynccontextmanager
async def wired(folder: Path) -> AsyncIterator[Wired]:
    told: list[str] = []

    def sent(message: Message) -> None:
        number = message.body.get("number", message.body.get("state", ""))
        told.append(f"{message.type} {number}".strip())

    with Store(folder) as store:
        hub = Hub(store, sent=sent)
        running = asyncio.create_task(hub.run())
        yield Wired(hub, told)
        hub.close()
        await running


def test_all_comes_to_the_loop_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:

            def work() -> None:
                parts.sink.status(SourceStatus("lobby", "browser", "live"))
                parts.sink.decided([decided(1, state="provisional")])
                parts.sink.signal(Signal("lobby", 1.0, 2.0, ()))
                parts.sink.activity(Acted("lobby", Activity(0, "blink", Mark(1, 0.1), Mark(4, 0.2))))
                parts.sink.decided([decided(1), decided(2, state="provisional"), decided(2)])
                parts.sink.removed("lobby")

            await on_a_thread(work)
            assert parts.told == [], "nothing is done on the thread"
            await parts.until("removed")
            events = ["expression final", "expression provisional", "expression final"]
            assert parts.told == ["status live", "expression provisional", "signal", "activity", *events, "removed"]

    run(test)


def test_of_pictures_that_wait_the_newest_is_shown(tmp_path: Path) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:

            def work() -> None:
                for number in range(5):
                    parts.sink.preview(Preview("lobby", {"number": number}, b"jpeg"))
                parts.sink.preview(Preview("door", {"number": "door's"}, b"jpeg"))

            await on_a_thread(work)
            await parts.until("preview door's")
            assert parts.told == ["preview 4", "preview door's"]
            await on_a_thread(lambda: parts.sink.preview(Preview("lobby", {"number": 5}, b"jpeg")))
            await parts.until("preview 5")

    run(test)


def test_pictures_are_kept_before_their_event_is_sent_and_apart_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:
            posted: list[Decided] = []
            monkeypatch.setattr(parts.hub, "post", posted.append)
            events = [Decided(an_event(1, evidence=evidence()), 1.0), Decided(an_event(2), 1.0)]
            await on_a_thread(lambda: parts.sink.decided(events))
            assert parts.shelf.get("lobby-1", "apex") is not None and not posted
            await asyncio.sleep(0)
            assert [(one.event.evidence, one.evidence) for one in posted] == [(None, True), (None, False)]

    run(test)


def test_wishes_need_no_loop(tmp_path: Path) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:
            assert parts.sink.preview_wish("lobby") == PreviewWish(160, 10.0)
            assert parts.sink.preview_wish("door") is None

    run(test)


def test_a_thread_that_outlives_the_loop_comes_to_no_harm() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    done: list[int] = []
    bring(loop, done.append, 1)
    assert done == []


def facts(parts: Wired, *, ready: bool = True) -> KnownFacts:
    return KnownFacts(parts.hub, parts.shelf, "ahmsa-3db@sha256:0", "0.1.0", "a-store", lambda: ready)


def test_facts_are_those_of_the_hub_and_the_shelf(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1), stored(2)])

    async def test() -> None:
        async with wired(tmp_path) as parts:
            known = facts(parts)
            parts.hub.post(SourceStatus("lobby", "rtsp", "live"))
            assert (known.seq, known.problem) == (2, None)
            assert [status.stream for status in known.statuses()] == ["lobby"]
            assert [event["seq"] for event in await known.stored(1, limit=10)] == [2]
            assert known.picture("lobby-1", "apex") is None
            assert facts(parts, ready=False).problem == "the networks are being loaded"
        with pytest.raises(OutputError, match="the service is ending"):
            await known.stored(0)

    run(test)


def test_cameras_come_and_go_off_the_loop() -> None:
    async def test() -> None:
        sink = Collected()
        session = Session(LiveSettings(), sink)
        session.start()
        cameras, feed = Cameras(session), Mailbox[Arrival](2, newest=True)
        await cameras.add_browser("desk", feed)
        with pytest.raises(InputError, match="already"):
            await cameras.add_browser("desk", feed)
        cameras.told(SourceStatus("desk", "browser", "live"))
        await cameras.remove_browser("desk")
        cameras.told(SourceStatus("desk", "browser", "ended"))
        assert sink.states("desk") == ["live"] and sink.gone == ["desk"]
        session.stop(PATIENCE_S)

    run(test)
