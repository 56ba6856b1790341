"""A running hub, and a subscriber that keeps what it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from stream.events.hub import Hub
from stream.events.store import Store
from stream.protocol import Message, Subscribe

DEADLINE_S = 30


class Client:
    """A subscriber that keeps what it was sent, and reads at the pace that a test gives it."""

    def __init__(self, subscription: Subscribe | None = None, *, reading: bool = True) -> None:
        self.subscription = subscription or Subscribe()
        self.got: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        if reading:
            self.reading.set()

    def wants(self, message: Message) -> bool:
        return self.subscription.wants(message)

    def write(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        self.got.append(json.loads(message))

    async def drained(self) -> None:
        await self.reading.wait()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message["type"] == kind]

    @property
    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.of("expression") if "seq" in message]

    async def until(self, there: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not there():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def running(store: Store, **options: Any) -> AsyncIterator[Hub]:
    hub = Hub(store, **options)
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        hub.close()
        await asyncio.wait_for(task, DEADLINE_S)


def on_a_loop(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 2 * DEADLINE_S))
