"""A real service on a thread of its own, and a real Chromium that opens its page."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, Page, Playwright

from engine.types import Evidence
from stream.messages import Acted, Decided, Forwarded, NodeStatus, Signal, SourceStatus
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from stream.sources.settings import SourceSettings
from tests.live import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
PATIENCE_MS = 1000 * PATIENCE_S


class RunningService:
    """The live service, as `apexstream live` runs it, with its store in a folder; port 0 is any that is free."""

    def __init__(self, folder: Path, *sources: SourceSettings, port: int = 0, **server: Any) -> None:
        self.settings = LiveSettings(
            sources=sources, server=ServerSettings(port=port, **server), store=StoreSettings(folder=folder)
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.service = self._on_loop(self._started())
            self.settled_port = self.service.server.port
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._on_loop(self.service.__aexit__(None, None, None))
        finally:
            self._end_loop()

    @property
    def url(self) -> str:
        return str(self.service.url)

    def tell(self, *items: Decided | SourceStatus | Signal | Acted | Forwarded | NodeStatus) -> None:
        """Pass on what a source's threads would."""
        for item in items:
            self._loop.call_soon_threadsafe(self.service.hub.post, item)

    def keep(self, event: str, evidence: Evidence) -> None:
        """Keep the evidence of an event."""
        self.service.evidence.put(event, evidence)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The service's loop is blocked meanwhile: the kernel accepts connections, and no request is answered."""
        thaw = threading.Event()
        self._loop.call_soon_threadsafe(thaw.wait)
        try:
            yield
        finally:
            thaw.set()

    async def _started(self) -> Service:
        service = await Service(self.settings).__aenter__()
        await service.ready()
        return service

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


@contextmanager
def chromium(playwright: Playwright, *options: str) -> Iterator[Browser]:
    """Debian's Chromium without a window."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def visited(
    browser: Browser,
    url: str,
    *,
    ready: str = "#link[data-state=live]",
    complaints_expected: bool = False,
    script: str = "",
    **look: Any,
) -> Iterator[Page]:
    """The page, open and connected, in a context of its own; complaints of page or browser fail the test.

    ready: what the page has once it is connected.

    complaints_expected: the browser logs requests that were not answered, so its console is ignored.
    script: runs in the page before its own code.
    """
    with browser.new_context(accept_downloads=True, **look) as context:
        context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        strangers: list[str] = []
        page.on("console", lambda logged: complaints.append(logged.text) if logged.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: strangers.append(request.url) if not request.url.startswith(url.partition("#")[0]) else None,
        )
        page.goto(url)
        page.wait_for_selector(ready)
        yield page
        assert complaints_expected or not complaints, complaints
        abroad = [stranger for stranger in strangers if not stranger.startswith(("blob:", "data:"))]
        assert not abroad, abroad
