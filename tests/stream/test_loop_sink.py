from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.types import Activity, Mark
from stream.events.evidence import EvidenceStore
from stream.events.hub import Hub
from stream.events.store import Store
from stream.loop_sink import LoopSink, call_on_loop
from stream.messages import Acted, Decided, Preview, Signal, SourceStatus, WantedPreview
from stream.protocol import Message
from tests.events import an_event, decided, evidence
from tests.live import PATIENCE_S


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await test()

    asyncio.run(whole())


async def on_a_thread(act: Callable[[], Any]) -> None:
    """Call act on a thread while the loop is blocked."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the sink does not wait for the loop"


class Wiring:
    """A sink, its hub, and the messages that the hub sent."""

    def __init__(self, hub: Hub, messages: list[str]) -> None:
        self.hub, self.messages, self.evidence = hub, messages, EvidenceStore(5)
        self.sink = LoopSink(
            asyncio.get_running_loop(),
            hub,
            self.evidence,
            on_status=hub.post,
            on_removed=hub.remove,
            wanted_preview=lambda stream: WantedPreview(160, 10.0) if stream == "lobby" else None,
        )

    async def until(self, last: str) -> None:
        while last not in self.messages:
            await asyncio.sleep(0.002)


@asynccontextmanager
async def wired(folder: Path) -> AsyncIterator[Wiring]:
    messages: list[str] = []

    def sent(message: Message) -> None:
        number = message.body.get("number", message.body.get("state", ""))
        messages.append(f"{message.type} {number}".strip())

    with Store(folder) as store:
        hub = Hub(store, sent=sent)
        running = asyncio.create_task(hub.run())
        yield Wiring(hub, messages)
        hub.close()
        await running


def test_everything_reaches_the_loop_in_order(tmp_path: Path) -> None:
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
            assert parts.messages == [], "nothing is done on the thread"
            await parts.until("removed")
            events = ["expression final", "expression provisional", "expression final"]
            assert parts.messages == ["status live", "expression provisional", "signal", "activity", *events, "removed"]

    run(test)


def test_only_the_newest_of_waiting_previews_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:

            def work() -> None:
                for number in range(5):
                    parts.sink.preview(Preview("lobby", {"number": number}, b"jpeg"))
                parts.sink.preview(Preview("door", {"number": "door's"}, b"jpeg"))

            await on_a_thread(work)
            await parts.until("preview door's")
            assert parts.messages == ["preview 4", "preview door's"]
            await on_a_thread(lambda: parts.sink.preview(Preview("lobby", {"number": 5}, b"jpeg")))
            await parts.until("preview 5")

    run(test)


def test_evidence_is_kept_before_its_event_is_sent_and_apart_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:
            posted: list[Decided] = []
            monkeypatch.setattr(parts.hub, "post", posted.append)
            provisional = an_event(1, state="provisional", evidence=evidence())
            events = [Decided(event, 1.0) for event in (provisional, an_event(1), an_event(2))]
            await on_a_thread(lambda: parts.sink.decided(events))
            assert parts.evidence.get("lobby-1", "apex") is not None and not posted
            await asyncio.sleep(0)
            assert [(one.event.evidence, one.evidence) for one in posted] == [(None, True), (None, True), (None, False)]

    run(test)


def test_wanted_previews_need_no_loop(tmp_path: Path) -> None:
    async def test() -> None:
        async with wired(tmp_path) as parts:
            assert parts.sink.wanted_preview("lobby") == WantedPreview(160, 10.0)
            assert parts.sink.wanted_preview("door") is None

    run(test)


def test_a_thread_may_outlive_the_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    done: list[int] = []
    call_on_loop(loop, done.append, 1)
    assert done == []
