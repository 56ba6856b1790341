"""The store on threads, for an event loop: written on one, read on a second, examined for damage on a third."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, Unpack

from stream.events.query import Bounds, Reader
from stream.events.store import Store

R = TypeVar("R")


class StoreThreads:
    """A store used from one event loop; methods raise what those of `Store` and `Reader` raise.

    Raises OutputError where the store cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._reader: Reader | None = Reader(store.path.parent)  # the reading thread's; None while the store is reopened
        self._refusing = False
        self._write = ThreadPoolExecutor(1, "store")
        self._read = ThreadPoolExecutor(1, "replay")
        self._examine = ThreadPoolExecutor(1, "examine")
        self._released: Future[None] | None = None

    @property
    def damaged(self) -> int:
        """Stored events that were skipped so far because they cannot be read."""
        return len(self._reader.damaged) if self._reader else 0

    async def write(self, work: Callable[[], R]) -> R:
        """What work returns, called on the thread that writes."""
        return await self._run(self._write, work)

    async def since(self, seq: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """`Reader.since`. Raises ConnectionAbortedError where `refuse_reads` is called before it is done."""
        return await self._run(self._read, partial(self._since, seq, bounds))

    async def examine(self) -> None:
        """`Store.examine`."""
        await self._run(self._examine, self.store.examine)

    async def reopen(self) -> None:
        """`Store.reopen`, with the reader closed meanwhile."""
        await self._run(self._read, self._close_reader)
        await self.write(self.store.reopen)

    def refuse_reads(self) -> None:
        """Let reads that wait for their thread fail, so that it can end."""
        self._refusing = True

    def shut_down(self) -> None:
        """Let each thread end after what it is doing, without waiting for it."""
        self.refuse_reads()
        self._examine.shutdown(wait=False)
        self._read.submit(self._close_reader)
        self._read.shutdown(wait=False)
        self._released = self._write.submit(lambda: None)
        self._write.shutdown(wait=False)

    async def released(self) -> None:
        """Return once the writing thread has ended, after `shut_down`."""
        if self._released is not None:
            await asyncio.shield(asyncio.wrap_future(self._released))

    def when_released(self, call: Callable[[], None]) -> None:
        """Call `call` once the writing thread has ended, on any thread; at once where it never started."""
        if self._released is None:
            call()
        else:
            self._released.add_done_callback(lambda _: call())

    def _since(self, seq: int, bounds: Bounds) -> list[dict[str, Any]]:
        if self._refusing:
            raise ConnectionAbortedError("the service ends")
        if self._reader is None:
            self._reader = Reader(self.store.path.parent)
        return self._reader.since(seq, **bounds)

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    @staticmethod
    async def _run(thread: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
