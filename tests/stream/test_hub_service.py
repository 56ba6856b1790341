from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.errors import OutputError
from stream.hub_service import HubService, first_completed
from stream.settings import ServerSettings, StoreSettings
from tests.events import decided, read
from tests.live import PATIENCE_S


class Smallest(HubService):
    """A hub and a server that nothing feeds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(model="none", evidence_events=0)
        self._folder = folder

    async def _start(self, stack: AsyncExitStack) -> None:
        self._open_hub(stack, StoreSettings(folder=self._folder))
        self.server = self._make_server(ServerSettings(port=0))
        await self.server.start()
        stack.push_async_callback(self._stop_server)
        self._run_hub(stack)
        self._ready.set_result(None)


def test_what_was_posted_is_stored_before_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with Smallest(tmp_path) as service:
            await service.ready()
            assert service.url.startswith("http://127.0.0.1:") and service.events_url == "ws" + service.url[4:]
            service.hub.post(decided(1))
        again = Smallest(tmp_path)
        async with again:
            assert [event["id"] for event in read(again.store)] == ["lobby-1"]

    asyncio.run(main())


def test_one_that_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with Smallest(tmp_path):
            with pytest.raises(OutputError, match=r"in use|another service"):
                async with Smallest(tmp_path):
                    pass
        async with Smallest(tmp_path):
            pass

    asyncio.run(main())


def test_the_first_of_several_ends_the_others_and_raises_its_error() -> None:
    async def main() -> None:
        never = asyncio.Event()

        async def failing() -> None:
            raise OutputError("it failed")

        waiting = asyncio.ensure_future(never.wait())
        with pytest.raises(OutputError, match="it failed"):
            await first_completed(waiting, failing())
        assert waiting.cancelled()

    asyncio.run(main())


def test_a_task_that_loses_its_cancellation_is_cancelled_again() -> None:
    async def deaf() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await first_completed(deaf(), asyncio.sleep(0))

    asyncio.run(main())
