"""A client of the live service that keeps all events it is sent, and a check of whether an event was lost or came twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from stream.events.database import FILE
from stream.events.query import Reader
from stream.protocol import SUBPROTOCOL

PATIENCE_S = 60.0


@dataclass
class RecordingClient:
    """A client that keeps every final event after since that it is sent, and says when another one came.

    options are those of its connections, as websockets' connect takes them; with ssl it speaks TLS.
    """

    since: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    @property
    def seq(self) -> int:
        """Where it goes on."""
        return int(self.seen[-1]["seq"]) if self.seen else self.since

    async def watch(self, port: int) -> None:
        """Follow, and connect again whenever that ends."""
        while True:
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, EOFError):
                async with connected(port, self.seq, **self.options) as received:
                    self.connections += 1
                    async for event in received:
                        self.seen.append(event)
                        self.came.set()
            await asyncio.sleep(0.02)

    async def until(self, seq: int) -> None:
        """Return once it saw an event of that number or a later one. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while self.seq < seq:
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def connected(port: int, since: int, **options: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The final events of one connection; options as `RecordingClient` has them."""
    address = f"{'wss' if 'ssl' in options else 'ws'}://127.0.0.1:{port}/?type=expression&since={since}"
    protocols = [Subprotocol(SUBPROTOCOL)]
    async with connect(address, subprotocols=protocols, open_timeout=PATIENCE_S, close_timeout=1, **options) as socket_:

        async def finals() -> AsyncIterator[dict[str, Any]]:
            async for text in socket_:
                message = json.loads(text)
                if message["type"] == "expression" and message["state"] == "final":
                    message.pop("evidence", None)  # says which pictures are in the service's memory, and is not stored
                    yield message

        yield finals()


def examined(folder: Path, seen: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """What is stored, and what is wrong with it."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        whole = db.execute("PRAGMA integrity_check").fetchall()
    problems = [] if whole == [("ok",)] else [f"the store is damaged: {whole[0][0]}"]
    with Reader(folder) as reader:
        events = reader.since(0, limit=sys.maxsize)
    return events, problems + violations(events, seen)


def violations(stored: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with events that were stored and events that one client saw, in sentences."""
    problems = []
    if (numbers := [event["seq"] for event in stored]) != list(range(1, len(stored) + 1)):
        problems.append(f"the {len(stored)} stored events are numbered {_oddities(numbers)}")
    if twice := [name for name, times in Counter(event["id"] for event in stored).items() if times > 1]:
        problems.append(f"{len(twice)} events are stored twice, {twice[0]} among them")
    if (numbers := [event["seq"] for event in seen]) != list(range(1, len(seen) + 1)):
        problems.append(f"the {len(seen)} events seen are numbered {_oddities(numbers)}")
    kept = {event["seq"]: event for event in stored}
    if unkept := [event["seq"] for event in seen if kept.get(event["seq"]) != event]:
        problems.append(f"{len(unkept)} events were sent and are not stored like that, number {unkept[0]} among them")
    return problems


def _oddities(numbers: Sequence[int]) -> str:
    """Where numbers are not 1, 2, 3, ..."""
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    twice = sorted(number for number, times in Counter(numbers).items() if times > 1)
    return f"out of order, missing {missing[:5]}, twice {twice[:5]}"
