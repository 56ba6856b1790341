"""What every service with a hub has: store, hub, metrics and server on one event loop, and their shutdown in order.

A subclass starts what feeds the hub. Shutdown goes in this order, so that nothing is lost: what feeds the hub ends, the hub
stores and sends what it has, the connections are closed with 1001, the store is closed; within three seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from engine.errors import ApexError
from stream.events.evidence import EvidenceStore
from stream.events.hub import Hub
from stream.events.store import Store
from stream.loop_sink import call_on_loop
from stream.permissions import warn_if_open
from stream.process import freeze_loaded
from stream.protocol import Message
from stream.recorded.summary import package_versions
from stream.server.metrics import Metrics
from stream.server.server import Server
from stream.settings import ServerSettings, StoreSettings
from stream.shutdown import GracefulShutdown

log = logging.getLogger(__name__)

END_S = 2.7
"""Time limit of the whole shutdown; the process ends within three seconds."""
STORE_S, CLOSE_S = 0.7, 0.6
"""Of it, reserved for the hub and for closing connections, however long the stages before take."""
RESET_S = 0.2
"""Of CLOSE_S, reserved for resetting the connections that do not close."""
CANCEL_S = 0.1
"""After so long a task that was cancelled and goes on is cancelled again."""


class HubService(ABC):
    """One service, started and stopped by `async with`; `ready` waits until it does its work.

    Entering raises OutputError where the store cannot be opened, ConfigError where the port cannot be bound.
    """

    hub: Hub
    store: Store
    server: Server

    def __init__(self, *, model: str, evidence_events: int) -> None:
        self.model = model
        self.version = package_versions()["apexstream"] or "unknown"
        self.evidence = EvidenceStore(evidence_events)
        self.metrics = Metrics()
        self._stack = AsyncExitStack()
        self._ready: asyncio.Future[None]
        self._hub_task: asyncio.Task[None]
        self._end_by: float | None = None  # the loop's time, set when the shutdown starts

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Return once it does its work. Raises why it cannot."""
        await asyncio.shield(self._ready)

    async def failed(self) -> None:
        """Never return while the service works; raises the error that ends it."""
        await self.ready()
        await asyncio.shield(self._hub_task)

    @property
    def url(self) -> str:
        """The page's address."""
        return self.server.url

    @property
    def events_url(self) -> str:
        """The address of the events' websocket."""
        return "ws" + self.server.url.removeprefix("http")

    @abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Start the parts in the order of their dependencies; the stack stops them in reverse."""

    def _sent(self, message: Message) -> None:
        """Count a message that is sent to all."""
        if message.type == "expression":
            self.metrics.event(message.body, browser=message.source == "browser")
        elif message.type == "removed":
            self.metrics.removed(str(message.stream))

    def _open_hub(self, stack: AsyncExitStack, keep: StoreSettings) -> None:
        """The store and the hub, with their figures; the hub does not run yet."""
        self.store = Store(keep.place(), keep_days=keep.keep_days, keep_bytes=keep.keep_bytes, recreate=keep.recreate)
        stack.callback(lambda: self.hub.threads.when_released(self.store.close))
        self.hub = Hub(
            self.store,
            model=self.model,
            version=self.version,
            evidence=lambda event: event in self.evidence,
            sent=self._sent,
            replayed=self.metrics.replayed.inc,
            store_seconds=self.metrics.store_seconds.observe,
        )
        self.metrics.store_bytes.set_function(lambda: self.store.size)
        self.metrics.seq.set_function(lambda: self.hub.seq)
        self.metrics.problem.set_function(lambda: self.hub.problem is not None)
        self.metrics.damaged.set_function(lambda: self.hub.threads.damaged)
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda future: future.cancelled() or future.exception())  # even if nobody awaits it

    def _make_server(self, settings: ServerSettings, **options: Any) -> Server:
        if settings.key is not None:
            warn_if_open(settings.key)
        ready = self._ready.done
        return Server(settings, self.hub, picture=self.evidence.get, ready=ready, metrics=self.metrics, **options)

    def _run_hub(self, stack: AsyncExitStack) -> None:
        self._hub_task = asyncio.create_task(self.hub.run())
        stack.push_async_callback(self._stop_hub)

    def _left(self, kept: float) -> float:
        """Seconds left for a stage of the shutdown when `kept` are reserved for the stages after it."""
        now = asyncio.get_running_loop().time()
        if self._end_by is None:
            self._end_by = now + END_S
        return max(0.0, self._end_by - now - kept)

    async def _stop_hub(self) -> None:
        self.hub.close()
        try:
            async with asyncio.timeout(self._left(CLOSE_S)):
                await self._hub_task
        except TimeoutError:
            log.error("the store did not answer in time; %d of the last events may be lost", self.hub.backlog)
        except ApexError as error:
            log.error("%s", error)

    async def _stop_server(self) -> None:
        left = self._left(0.0)
        try:
            async with asyncio.timeout(left):
                await self.server.stop(within=max(0.0, left - RESET_S))
        except TimeoutError:
            log.warning("not every connection was closed in time")


S = TypeVar("S", bound=HubService)


def run_service(made: Callable[[], S], started: Callable[[S], None]) -> None:
    """Run the service that made returns until a signal stops it; started is called once it accepts requests. Raises what
    entering it raises."""
    with GracefulShutdown() as shutdown:
        asyncio.run(_run_until_signal(made, started, shutdown))


async def _run_until_signal(made: Callable[[], S], started: Callable[[S], None], shutdown: GracefulShutdown) -> None:
    stop = event_of(shutdown)
    async with made() as service:
        started(service)
        await first_completed(stop.wait(), _run(service))
        stopping = time.monotonic()
        log.info("ending")
    log.info("ended in %.1f s", time.monotonic() - stopping)


async def _run(service: HubService) -> None:
    """Never return while the service works; raises the error that ends it."""
    await service.ready()
    freeze_loaded()
    await service.failed()


async def first_completed(*awaitables: Awaitable[Any]) -> None:
    """Return as soon as one of the awaitables is done, or raise what it raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancelled(*tasks)


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until all have ended. Python 3.11's wait_for, which redis-py uses, loses a cancellation that comes when what
    it waits for is done."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_S)
    await asyncio.gather(*tasks, return_exceptions=True)


def event_of(shutdown: GracefulShutdown) -> asyncio.Event:
    """An event of the running loop, set by the first signal."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    shutdown.on_signal(lambda: call_on_loop(loop, stop.set))
    return stop
