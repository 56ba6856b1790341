"""A review's server on a thread of its own, and its page in Chromium."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, Page

from stream.recorded.results import read_results
from stream.review.codes import Code
from stream.review.database import ReviewDatabase
from stream.review.server import ReviewServer
from stream.review.session import ReviewSession
from tests.browser import visited
from tests.live import PATIENCE_S


class RunningReview:
    """The server of a review of the results in folder; port 0 is any that is free."""

    def __init__(self, folder: Path, coder: str = "anna", *, port: int = 0, **options: Any) -> None:
        self.folder, self.coder = folder, coder
        self._port, self._options = port, options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="review")

    def __enter__(self) -> Self:
        results = read_results(self.folder)
        assert results.video is not None
        self._database = ReviewDatabase.open(self.folder)
        session = ReviewSession(results, self._database, self.coder, **self._options)
        self.server = ReviewServer(session, results.video, port=self._port)
        self._thread.start()
        try:
            self._on_loop(self.server.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._on_loop(self.server.__aexit__(None, None, None))
        finally:
            self._end()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def codes(self) -> dict[str, Code]:
        """The coder's codes as they are on disk, by id."""
        with ReviewDatabase.open(self.folder) as database:
            return {code.id: code for code in database.codes(self.coder)}

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        self._database.close()


@contextmanager
def review_page(browser: Browser, url: str, *, picture: bool = True, **look: Any) -> Iterator[Page]:
    """The page, connected and with a picture of the video."""
    with visited(browser, url, ready="#link[data-state=saved]", **look) as page:
        if picture:
            page.wait_for_selector("#picture[data-frame]")
        yield page


def saved(page: Page) -> None:
    """Wait until all that was done is stored."""
    page.wait_for_selector("#link[data-state=saved]")
