from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stream.events.hub import Hub
from stream.events.query import Reader
from stream.events.store import Store
from tests.events import decided
from tests.subscribing import DEADLINE_S, on_a_loop, running


class Hanging(Store):
    """A store on a disk that does not answer for a while."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.called, self.answers, self.closed = threading.Event(), threading.Event(), threading.Event()

    def append(self, events: Sequence[dict[str, Any]]) -> list[int]:
        self.called.set()
        assert self.answers.wait(DEADLINE_S)
        return super().append(events)

    def close(self) -> None:
        super().close()
        self.closed.set()


def test_shutdown_does_not_wait_for_the_disk_and_the_store_is_closed_afterwards(tmp_path: Path) -> None:
    store = Hanging(tmp_path)

    async def body() -> None:
        hub = Hub(store)
        task = asyncio.create_task(hub.run())
        hub.post(decided(1))
        await asyncio.to_thread(store.called.wait, DEADLINE_S)
        hub.close()
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.cancelled()
        assert hub.backlog == 1
        hub.when_store_released(store.close)
        assert not store.closed.is_set(), "its thread still uses it"
        store.answers.set()
        assert await asyncio.to_thread(store.closed.wait, DEADLINE_S)

    on_a_loop(body)
    with Reader(tmp_path) as reader:
        assert [event["seq"] for event in reader.since(0)] == [1]


def test_a_store_that_no_thread_uses_is_closed_at_once(tmp_path: Path) -> None:
    store = Hanging(tmp_path)

    async def body() -> None:
        async with running(store) as hub:
            pass
        hub.when_store_released(store.close)
        assert store.closed.is_set()

    on_a_loop(body)
