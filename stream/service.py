"""The live service: sources, store, hub and server together, on one event loop.

    threads of the session --Sink--> the loop: hub (stored, numbered) --> sockets

`serve` runs it until a signal ends it. It ends in this order, so that nothing is lost: the sources are closed and their open
events flushed, the hub stores and sends them, the sockets are closed with 1001, the store is closed; all within three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from types import TracebackType
from typing import Any, Self

from engine.config import RecognizerSettings
from engine.errors import ApexError, InputError
from engine.weights import load_card, weights_for
from stream.analysis.supervisor import create_session
from stream.analysis.worker import MakePipeline
from stream.events.evidence import Shelf
from stream.events.hub import Hub
from stream.events.store import Store
from stream.messages import PreviewWish, SourceStatus
from stream.permissions import warn_if_open
from stream.process import freeze_loaded, opencv_on_one_thread
from stream.protocol import Message
from stream.server.metrics import Metrics
from stream.server.server import Server
from stream.settings import LiveSettings
from stream.shutdown import GracefulShutdown
from stream.sources.address import parse_address
from stream.wiring import Cameras, KnownFacts, LoopSink, bring

log = logging.getLogger(__name__)

END_S = 2.7
"""For the whole end; the process is gone within three seconds."""
STORE_S, CLOSE_S = 0.7, 0.6
"""Of it, kept for the hub and for the sockets, however long what comes before them takes."""
CUT_OFF_S = 0.2
"""Of the sockets' time, kept for cutting off who does not leave."""


class Service:
    """One service. `async with` starts it and ends it; `ready` waits until every source is analysed.

    Entering raises OutputError where the store cannot be had, ConfigError where the port cannot, WeightsError or BackendError
    where there is no such network.
    """

    def __init__(self, settings: LiveSettings, *, make: MakePipeline | None = None) -> None:
        self.settings = settings
        self.model = model_of(settings.pipeline.recognizer)
        self.version = _version()
        self.shelf = Shelf(settings.evidence_events)
        self.figures = Metrics()
        self._make = make
        self._stack = AsyncExitStack()
        self._ready: asyncio.Future[None]
        self._end_by: float | None = None  # the loop's time, known once the end has begun
        self._states: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._begin(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Return once the networks of all sources are loaded. Raises what keeps them from it."""
        await asyncio.shield(self._ready)

    async def failed(self) -> None:
        """Return never while all is well; raises what keeps the service from going on."""
        await self.ready()
        await asyncio.shield(self._hub_task)

    @property
    def url(self) -> str:
        """The page's address."""
        return self.server.url

    @property
    def events_url(self) -> str:
        """The address of the events' socket."""
        return "ws" + self.server.url.removeprefix("http")

    @property
    def sources(self) -> list[tuple[str, str]]:
        """Each source's name and where it is, without credentials."""
        return [(source.name, parse_address(source.url).shown) for source in self.settings.sources]

    async def _begin(self, stack: AsyncExitStack) -> None:
        """Start everything, in the order in which it can be relied on; the stack ends it the other way round."""
        loop = asyncio.get_running_loop()
        stack.enter_context(opencv_on_one_thread())
        if self.settings.server.key is not None:
            warn_if_open(self.settings.server.key)
        keep = self.settings.store
        self.store = Store(keep.place(), keep_days=keep.keep_days, keep_bytes=keep.keep_bytes, recreate=keep.recreate)
        stack.callback(lambda: self.hub.at_rest(self.store.close))
        self.hub = Hub(
            self.store,
            model=self.model,
            version=self.version,
            evidence=lambda event: event in self.shelf,
            sent=self._sent,
            replayed=self.figures.replayed,
            stored=self.figures.stored,
        )
        self.figures.measure_store(lambda: self.store.size, lambda: self.hub.seq, lambda: self.hub.problem is not None)
        self.figures.count_damaged(lambda: self.hub.damaged)
        self._ready = loop.create_future()
        self._ready.add_done_callback(lambda future: future.cancelled() or future.exception())  # heard even if nobody waits
        sink = LoopSink(loop, self.hub, self.shelf, heard=self.heard, gone=self.gone, wish=self._wish)
        self.session = create_session(self.settings, sink, processed=self.figures.processed, make=self._make)
        self.facts = KnownFacts(self.hub, self.shelf, self.model, self.version, self.store.identity, self._ready.done)
        self.server = Server(self.settings.server, self.hub, self.facts, figures=self.figures, cameras=Cameras(self.session))
        await self.server.start()
        stack.push_async_callback(self._end_server)
        self._hub_task = asyncio.create_task(self.hub.run())
        stack.push_async_callback(self._end_hub)
        stack.push_async_callback(self._end_session)
        self.session.start(partial(bring, loop, self._loaded))

    def _loaded(self, error: Exception | None) -> None:
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        elif isinstance(error, ApexError):
            self._ready.set_exception(error)
        else:
            self._ready.set_exception(InputError(f"the analysis cannot begin ({type(error).__name__}: {error})"))

    def _left(self, kept: float) -> float:
        """Seconds left for a stage of the end when so many are kept for those behind it."""
        now = asyncio.get_running_loop().time()
        if self._end_by is None:
            self._end_by = now + END_S
        return max(0.0, self._end_by - now - kept)

    async def _end_session(self) -> None:
        if not await asyncio.to_thread(self.session.stop, self._left(STORE_S + CLOSE_S)):
            log.warning("not every source has ended in time")
        if not self._ready.done():
            self._ready.cancel()

    async def _end_hub(self) -> None:
        self.hub.close()
        try:
            async with asyncio.timeout(self._left(CLOSE_S)):
                await self._hub_task
        except TimeoutError:
            log.error("the store did not answer in time; of the last events %d may be lost", self.hub.backlog)
        except ApexError as error:
            log.error("%s", error)

    async def _end_server(self) -> None:
        left = self._left(0.0)
        try:
            async with asyncio.timeout(left):
                await self.server.stop(within=max(0.0, left - CUT_OFF_S))
        except TimeoutError:
            log.warning("not every connection was closed in time")

    # What the sink brings to the loop.

    def heard(self, status: SourceStatus) -> None:
        """How a source is doing: logged where its state changes, shown and sent."""
        state = f"{status.state}: {status.detail}" if status.detail else status.state
        if self._states.get(status.stream) != state:
            self._states[status.stream] = state
            troubled = status.state in ("stalled", "reconnecting")
            log.log(logging.WARNING if troubled else logging.INFO, "%s: %s", status.stream, _described(status))
        self.figures.status(status)
        self.hub.post(status)

    def gone(self, stream: str) -> None:
        """A stream that came and went is gone."""
        self._states.pop(stream, None)
        log.info("%s: gone", stream)
        self.hub.remove(stream)

    def _wish(self, stream: str) -> PreviewWish | None:
        return self.server.preview_wish(stream)

    def _sent(self, message: Message) -> None:
        if message.type == "expression":
            self.figures.event(message.body, browser=message.source == "browser")
        elif message.type == "removed":
            self.figures.removed(str(message.stream))


def serve(settings: LiveSettings, started: Callable[[Service], None], *, make: MakePipeline | None = None) -> None:
    """Run the service until a signal ends it; started is called once it answers. Raises what `Service` raises."""
    with GracefulShutdown() as shutdown:
        asyncio.run(_serve(settings, started, make, shutdown))


async def _serve(
    settings: LiveSettings, started: Callable[[Service], None], make: MakePipeline | None, shutdown: GracefulShutdown
) -> None:
    stop = _set_by(shutdown)
    async with Service(settings, make=make) as service:
        started(service)
        await first(stop.wait(), _at_work(service))
        began = time.monotonic()
        log.info("ending")
    log.info("ended in %.1f s", time.monotonic() - began)


async def _at_work(service: Service) -> None:
    """Until the service fails; raises why."""
    await service.ready()
    freeze_loaded()
    await service.failed()


async def first(*ways: Any) -> None:
    """Return as soon as one of the coroutines does, or raise what it raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[asyncio.Event]:
    """An event of the running loop, set by the first of `SHUTDOWN_SIGNALS`; a second Ctrl-C ends the process at once."""
    with GracefulShutdown(limit_s=None) as shutdown:
        yield _set_by(shutdown)


def _set_by(shutdown: GracefulShutdown) -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        if not loop.is_closed():  # else the service has ended already
            loop.call_soon_threadsafe(stop.set)

    shutdown.on_signal(end)
    return stop


def model_of(settings: RecognizerSettings) -> str:
    """The network's name and content, as events carry it. Raises WeightsError where there is none."""
    return load_card(settings.weights or weights_for(settings.network)).model_id


def _described(status: SourceStatus) -> str:
    size = f" ({status.width} x {status.height})" if status.state == "live" and status.width else ""
    return f"{status.state}{size}{': ' + status.detail if status.detail else ''}"


def _version() -> str:
    try:
        return installed("apexstream")
    except PackageNotFoundError:
        return "unknown"
