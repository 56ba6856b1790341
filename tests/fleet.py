"""Nodes and a hub of a fleet for tests: everything real but the sources, whose events a test posts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stream.client import Place, Remote, follow
from stream.fleet.service import FleetHub
from stream.outlets.settings import RedisSettings
from stream.service import Service
from stream.settings import HubSettings, LiveSettings, ServerSettings, StoreSettings
from tests.running_server import until


@asynccontextmanager
async def node(folder: Path, url: str, name: str = "desk", **redis: Any) -> AsyncIterator[Service]:
    """A node; `hub.post` takes what its sources would send."""
    settings = LiveSettings(
        server=ServerSettings(port=0),
        store=StoreSettings(folder=folder / name),
        redis=RedisSettings(url=url, node=name, **redis),
    )
    async with Service(settings) as service:
        yield service


@asynccontextmanager
async def hub(folder: Path, url: str, *, port: int = 0, **redis: Any) -> AsyncIterator[FleetHub]:
    settings = HubSettings(
        server=ServerSettings(port=port), store=StoreSettings(folder=folder / "hub"), redis=RedisSettings(url=url, **redis)
    )
    async with FleetHub(settings) as service:
        yield service


class Watcher:
    """A client of a hub that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def follow(self, service: FleetHub, since: int | None = 0) -> None:
        """Keep what comes, until cancelled."""
        async for message in follow(Remote(service.events_url), Place(since)):
            self.got.append(message)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message["type"] == kind]

    @property
    def finals(self) -> list[tuple[str, int]]:
        """Node and number of each final event."""
        return [(event["node"], event["node_seq"]) for event in self.of("expression") if event["state"] == "final"]

    def last(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The newest message of a type with these fields; an empty one where there is none."""
        found = (one for one in reversed(self.of(kind)) if all(one[name] == value for name, value in fields.items()))
        return next(found, {})

    async def until(self, true: Callable[[], Any], what: str) -> None:
        await until(true, what)
