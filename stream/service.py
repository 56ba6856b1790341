"""The live service: sources, store, hub and server together, on one event loop.

    threads of the session --LoopSink--> event loop: hub (stores, numbers) --> websockets

`serve` runs it until a signal. Shutdown goes in this order, so that nothing is lost: the sources are closed and their open
events flushed, the hub stores and sends them, the connections are closed with 1001, the store is closed; within three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from engine.config import RecognizerSettings
from engine.errors import ApexError, InputError
from engine.weights import load_card, weights_for
from stream.analysis.supervisor import create_session
from stream.analysis.worker import MakePipeline
from stream.events.evidence import EvidenceStore
from stream.events.hub import Hub
from stream.events.store import Store
from stream.loop_sink import LoopSink, call_on_loop
from stream.messages import SourceStatus, WantedPreview
from stream.outlets import OUTLETS
from stream.outlets.outlet import Outlet, OutletContext
from stream.outlets.running import RunningOutlets, from_thread
from stream.permissions import warn_if_open
from stream.process import freeze_loaded, opencv_on_one_thread
from stream.protocol import Message
from stream.recorded.summary import package_versions
from stream.server.metrics import Metrics
from stream.server.server import Server
from stream.settings import LiveSettings
from stream.shutdown import GracefulShutdown

log = logging.getLogger(__name__)

END_S = 2.7
"""Time limit of the whole shutdown; the process ends within three seconds."""
STORE_S, CLOSE_S = 0.7, 0.6
"""Of it, reserved for the hub and for closing connections, however long the stages before take."""
RESET_S = 0.2
"""Of CLOSE_S, reserved for resetting the connections that do not close."""


class Service:
    """One service, started and stopped by `async with`; `ready` waits until every source is analysed.

    Entering raises OutputError where the store cannot be opened, ConfigError where the port cannot be bound, WeightsError or
    BackendError where there is no such network.
    """

    def __init__(self, settings: LiveSettings, *, make: MakePipeline | None = None) -> None:
        self.settings = settings
        self.model = model_of(settings.pipeline.recognizer)
        self.version = package_versions()["apexstream"] or "unknown"
        self.evidence = EvidenceStore(settings.evidence_events)
        self.metrics = Metrics()
        self._make = make
        self.outlets = RunningOutlets([])
        self._stack = AsyncExitStack()
        self._ready: asyncio.Future[None]
        self._end_by: float | None = None  # the loop's time, set when the shutdown starts
        self._states: dict[str, str] = {}

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
        """Return once the networks of all sources are loaded. Raises why they cannot be."""
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

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start the parts in the order of their dependencies; the stack stops them in reverse."""
        loop = asyncio.get_running_loop()
        stack.enter_context(opencv_on_one_thread())
        if self.settings.server.key is not None:
            warn_if_open(self.settings.server.key)
        keep = self.settings.store
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
        self.metrics.outlets = lambda: self.outlets.statuses
        self.metrics.damaged.set_function(lambda: self.hub.threads.damaged)
        self._ready = loop.create_future()
        self._ready.add_done_callback(lambda future: future.cancelled() or future.exception())  # even if nobody awaits it
        sink = LoopSink(
            loop,
            self.hub,
            self.evidence,
            on_status=self._on_status,
            on_removed=self._on_removed,
            wanted_preview=self._wanted_preview,
        )
        self.session = create_session(self.settings, sink, processed=self.metrics.processed, make=self._make)
        self.server = Server(
            self.settings.server,
            self.hub,
            picture=self.evidence.get,
            ready=self._ready.done,
            metrics=self.metrics,
            session=self.session,
        )
        self.outlets = RunningOutlets(self._make_outlets(loop))
        await self.server.start()
        stack.push_async_callback(self._stop_server_and_outlets)
        self._hub_task = asyncio.create_task(self.hub.run())
        stack.push_async_callback(self._stop_hub)
        stack.push_async_callback(self._stop_session)
        self.session.start(partial(call_on_loop, loop, self._loaded))
        self.outlets.start()

    def _loaded(self, error: Exception | None) -> None:
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            unexpected = InputError(f"the analysis cannot begin ({type(error).__name__}: {error})")
            self._ready.set_exception(error if isinstance(error, ApexError) else unexpected)

    def _left(self, kept: float) -> float:
        """Seconds left for a stage of the shutdown when `kept` are reserved for the stages after it."""
        now = asyncio.get_running_loop().time()
        if self._end_by is None:
            self._end_by = now + END_S
        return max(0.0, self._end_by - now - kept)

    async def _stop_session(self) -> None:
        if not await asyncio.to_thread(self.session.stop, self._left(STORE_S + CLOSE_S)):
            log.warning("not every source stopped in time")
        if not self._ready.done():
            self._ready.cancel()

    async def _stop_hub(self) -> None:
        self.hub.close()
        try:
            async with asyncio.timeout(self._left(CLOSE_S)):
                await self._hub_task
        except TimeoutError:
            log.error("the store did not answer in time; %d of the last events may be lost", self.hub.backlog)
        except ApexError as error:
            log.error("%s", error)

    async def _stop_server_and_outlets(self) -> None:
        await asyncio.gather(self._stop_server(), self._stop_outlets())

    async def _stop_outlets(self) -> None:
        if not await asyncio.to_thread(self.outlets.stop, self._left(0.0)):
            log.warning("not every outlet has ended; what was not delivered follows after the next start where it is stored")

    async def _stop_server(self) -> None:
        left = self._left(0.0)
        try:
            async with asyncio.timeout(left):
                await self.server.stop(within=max(0.0, left - RESET_S))
        except TimeoutError:
            log.warning("not every connection was closed in time")

    # Called by the sink and the hub.

    def _on_status(self, status: SourceStatus) -> None:
        """Log a source's status where its state changed, and pass it on."""
        detail = f": {status.detail}" if status.detail else ""
        if self._states.get(status.stream) != status.state + detail:
            self._states[status.stream] = status.state + detail
            size = f" ({status.width} x {status.height})" if status.state == "live" and status.width else ""
            level = logging.WARNING if status.state in ("stalled", "reconnecting") else logging.INFO
            log.log(level, "%s: %s%s%s", status.stream, status.state, size, detail)
        self.metrics.status(status)
        self.hub.post(status)

    def _on_removed(self, stream: str) -> None:
        self._states.pop(stream, None)
        log.info("%s: removed", stream)
        self.hub.remove(stream)

    def _wanted_preview(self, stream: str) -> WantedPreview | None:
        return self.server.wanted_preview(stream)

    def _make_outlets(self, loop: asyncio.AbstractEventLoop) -> list[Outlet]:
        """The outlets for which the settings have a table."""
        context = OutletContext(
            folder=self.store.path.parent,
            store=self.store.identity,
            seq=self.store.last,
            stored=from_thread(loop, self.hub.stored),
            model=self.model,
            version=self.version,
            sources=tuple(source.name for source in self.settings.sources),
        )
        wanted = {name: getattr(self.settings, name) for name in OUTLETS}
        return [OUTLETS[name](settings, context) for name, settings in wanted.items() if settings is not None]

    def _sent(self, message: Message) -> None:
        self.outlets.offer(message)
        if message.type == "expression":
            self.metrics.event(message.body, browser=message.source == "browser")
        elif message.type == "removed":
            self.metrics.removed(str(message.stream))


def serve(settings: LiveSettings, started: Callable[[Service], None], *, make: MakePipeline | None = None) -> None:
    """Run the service until a signal stops it; started is called once it accepts requests. Raises what `Service` raises."""
    with GracefulShutdown() as shutdown:
        asyncio.run(_serve(settings, started, make, shutdown))


async def _serve(
    settings: LiveSettings, started: Callable[[Service], None], make: MakePipeline | None, shutdown: GracefulShutdown
) -> None:
    stop = _event_of(shutdown)
    async with Service(settings, make=make) as service:
        started(service)
        await first_completed(stop.wait(), _run(service))
        stopping = time.monotonic()
        log.info("ending")
    log.info("ended in %.1f s", time.monotonic() - stopping)


async def _run(service: Service) -> None:
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
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def stop_event() -> Iterator[asyncio.Event]:
    """An event of the running loop, set by the first signal of `SHUTDOWN_SIGNALS`; a second Ctrl-C ends the process at once."""
    with GracefulShutdown(limit_s=None) as shutdown:
        yield _event_of(shutdown)


def _event_of(shutdown: GracefulShutdown) -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    shutdown.on_signal(lambda: call_on_loop(loop, stop.set))
    return stop


def model_of(settings: RecognizerSettings) -> str:
    """The network's name and content, as events carry it. Raises WeightsError where there is none."""
    return load_card(settings.weights or weights_for(settings.network)).model_id
