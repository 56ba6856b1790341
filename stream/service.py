"""The live service: sources, store, hub and server together, on one event loop.

    threads of the session --LoopSink--> event loop: hub (stores, numbers) --> websockets

`serve` runs it until a signal. At its end the sources are closed and their open events flushed before the hub stops
(`stream.hub_service`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial

from engine.config import RecognizerSettings
from engine.errors import ApexError, InputError
from engine.weights import load_card, weights_for
from stream.analysis.supervisor import create_session
from stream.analysis.worker import MakePipeline
from stream.hub_service import CLOSE_S, STORE_S, HubService, event_of, run_service
from stream.loop_sink import LoopSink, call_on_loop
from stream.messages import SourceStatus, WantedPreview
from stream.outlets import OUTLETS
from stream.outlets.outlet import Outlet, OutletContext
from stream.outlets.running import RunningOutlets, from_thread
from stream.process import opencv_on_one_thread
from stream.protocol import Message
from stream.settings import LiveSettings
from stream.shutdown import GracefulShutdown

log = logging.getLogger(__name__)


class Service(HubService):
    """One service, started and stopped by `async with`; `ready` waits until every source is analysed.

    Entering raises OutputError where the store cannot be opened, ConfigError where the port cannot be bound, WeightsError or
    BackendError where there is no such network.
    """

    def __init__(self, settings: LiveSettings, *, make: MakePipeline | None = None) -> None:
        super().__init__(model=model_of(settings.pipeline.recognizer), evidence_events=settings.evidence_events)
        self.settings = settings
        self._make = make
        self.outlets = RunningOutlets([])
        self._states: dict[str, str] = {}

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start the parts in the order of their dependencies; the stack stops them in reverse."""
        loop = asyncio.get_running_loop()
        stack.enter_context(opencv_on_one_thread())
        self._open_hub(stack, self.settings.store)
        self.metrics.outlets = lambda: self.outlets.statuses
        sink = LoopSink(
            loop,
            self.hub,
            self.evidence,
            on_status=self._on_status,
            on_removed=self._on_removed,
            wanted_preview=self._wanted_preview,
        )
        self.session = create_session(self.settings, sink, processed=self.metrics.processed, make=self._make)
        self.server = self._make_server(self.settings.server, session=self.session)
        self.outlets = RunningOutlets(self._make_outlets(loop))
        await self.server.start()
        stack.push_async_callback(self._stop_server_and_outlets)
        self._run_hub(stack)
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

    async def _stop_session(self) -> None:
        if not await asyncio.to_thread(self.session.stop, self._left(STORE_S + CLOSE_S)):
            log.warning("not every source stopped in time")
        if not self._ready.done():
            self._ready.cancel()

    async def _stop_server_and_outlets(self) -> None:
        await asyncio.gather(self._stop_server(), self._stop_outlets())

    async def _stop_outlets(self) -> None:
        if not await asyncio.to_thread(self.outlets.stop, self._left(0.0)):
            log.warning("not every outlet has ended; what was not delivered follows after the next start where it is stored")

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
        super()._sent(message)


def serve(settings: LiveSettings, started: Callable[[Service], None], *, make: MakePipeline | None = None) -> None:
    """Run the service until a signal stops it; started is called once it accepts requests. Raises what `Service` raises."""
    run_service(lambda: Service(settings, make=make), started)


@contextlib.contextmanager
def stop_event() -> Iterator[asyncio.Event]:
    """An event of the running loop, set by the first signal of `SHUTDOWN_SIGNALS`; a second Ctrl-C ends the process at once."""
    with GracefulShutdown(limit_s=None) as shutdown:
        yield event_of(shutdown)


def model_of(settings: RecognizerSettings) -> str:
    """The network's name and content, as events carry it. Raises WeightsError where there is none."""
    return load_card(settings.weights or weights_for(settings.network)).model_id
