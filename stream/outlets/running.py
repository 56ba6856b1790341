"""The outlets of a running service, as one: made, started, offered messages, and stopped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from engine.errors import OutputError, first_line
from stream.outlets.outlet import Outlet, OutletStatus
from stream.protocol import Message

log = logging.getLogger(__name__)

READ_S = 10.0
"""How long an outlet waits for stored events."""


class RunningOutlets:
    """All outlets of a service, used on its event loop."""

    def __init__(self, outlets: list[Outlet]) -> None:
        self._outlets, self._receiving = outlets, list(outlets)

    def start(self) -> None:
        """Start their threads; returns at once."""
        for outlet in self._outlets:
            outlet.start()

    def offer(self, message: Message) -> None:
        """Pass on a message to all clients. A defect of an outlet is logged and affects nothing else."""
        for outlet in list(self._receiving):
            try:
                outlet.offer(message)
            except Exception as error:  # whatever is wrong with one, the others and the clients get the message
                log.debug("the outlet %s failed", outlet.name, exc_info=error)
                outlet.report("off", f"unexpected error ({type(error).__name__}: {first_line(error)})")
                self._receiving.remove(outlet)

    @property
    def shown(self) -> list[str]:
        """Each outlet's name and where it sends to."""
        return [f"{outlet.name}: {outlet.shown}" for outlet in self._outlets]

    @property
    def statuses(self) -> list[OutletStatus]:
        """The current status of each."""
        return [outlet.status for outlet in self._outlets]

    def stop(self, within: float) -> bool:
        """Let each deliver what is queued and end, within so many seconds; blocks. False where one has not ended."""
        until = time.monotonic() + within
        for outlet in self._outlets:
            outlet.stop()
        ended = [outlet.join(max(0.0, until - time.monotonic())) for outlet in self._outlets]
        return all(ended)


def from_thread(
    loop: asyncio.AbstractEventLoop, stored: Callable[..., Awaitable[list[dict[str, Any]]]]
) -> Callable[[int, int], list[dict[str, Any]]]:
    """`Hub.stored` for the threads of outlets: (since, limit) -> events; raises OutputError."""

    async def read(since: int, limit: int) -> list[dict[str, Any]]:
        return await stored(since, limit=limit)

    def call(since: int, limit: int) -> list[dict[str, Any]]:
        reading = read(since, limit)
        try:
            return asyncio.run_coroutine_threadsafe(reading, loop).result(READ_S)
        except (ConnectionAbortedError, RuntimeError, concurrent.futures.CancelledError) as error:
            reading.close()
            raise OutputError("stored events cannot be read: the service is ending") from error
        except TimeoutError as error:
            raise OutputError(f"stored events could not be read within {READ_S:g} s") from error

    return call
