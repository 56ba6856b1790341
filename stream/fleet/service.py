"""A fleet's hub as a service: what it reads from Redis is stored, numbered and served as the live service does it.

Redis --FleetReader--> event loop: hub (stores, numbers) --> websockets
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from stream.fleet.nodes import Nodes
from stream.fleet.reader import FleetReader
from stream.hub_service import HubService, cancelled, run_service
from stream.settings import HubSettings

log = logging.getLogger(__name__)

FOLDER = "hub"
"""Within the user's data folder, so that a live service may run beside it."""


class FleetHub(HubService):
    """One hub, started and stopped by `async with`.

    Entering raises OutputError where the store cannot be opened, ConfigError where the port cannot be bound or credentials
    cannot be read, BackendError where redis-py is missing.
    """

    def __init__(self, settings: HubSettings) -> None:
        super().__init__(model="", evidence_events=0)
        self.settings = settings

    async def _start(self, stack: AsyncExitStack) -> None:
        keep, redis = self.settings.store, self.settings.redis
        if redis.secret() is not None and not redis.encrypted and not redis.on_this_machine:
            log.warning("the password for %s crosses the network unencrypted; use rediss://", redis.shown)
        if keep.folder is None:
            keep = keep.model_copy(update={"folder": keep.place() / FOLDER})
        self._open_hub(stack, keep)
        self.hub.nodes = {}
        self.metrics.nodes = lambda: list((self.hub.nodes or {}).values())
        nodes = Nodes(self.hub, on_status=self.metrics.status)
        reader = FleetReader(redis, self.hub, nodes, self.store.positions)
        self.server = self._make_server(self.settings.server)
        await self.server.start()
        stack.push_async_callback(self._stop_server)
        self._run_hub(stack)
        self._reading = asyncio.create_task(reader.run())
        stack.push_async_callback(self._stop_reading)
        self._ready.set_result(None)

    async def _stop_reading(self) -> None:
        await cancelled(self._reading)


def serve_fleet(settings: HubSettings, started: Callable[[FleetHub], None]) -> None:
    """Run the hub until a signal stops it; started is called once it accepts requests. Raises what `FleetHub` raises."""
    run_service(lambda: FleetHub(settings), started)
