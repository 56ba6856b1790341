"""The store on threads, for an event loop: written on one, read on a second, examined for damage on a third.

Its file is checked at intervals and after errors, and reopened where it was removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, Unpack

from engine.errors import OutputError
from stream.events.database import LostError
from stream.events.query import Bounds, Reader
from stream.events.store import Store

R = TypeVar("R")
log = logging.getLogger(__name__)

CHECK_S = 2.0
"""Time between two checks that the file is in its place."""
LEAST_S = 0.2
"""The least time between two checks, however often `suspect` is called."""
EXAMINE_S = 300.0
"""Time between two checks that read the file as well."""
PRUNE_S = 60.0
HUNG_S = 5.0
"""A check that takes longer is reported: the disk does not answer."""


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
        self._suspected = asyncio.Event()

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

    def suspect(self) -> None:
        """Have the file read and checked soon: storing or reading has failed."""
        self._suspected.set()

    async def monitor(
        self, *, failed: Callable[[OutputError], None], hung: Callable[[OutputError], None], passed: Callable[[], None]
    ) -> None:
        """Find what is wrong with the store even while nothing is stored or read, and repair it where that is possible, until
        cancelled.

        Calls failed with the error of a check that the store cannot be reopened after, hung with an error while a check takes
        longer than HUNG_S, passed after a check without error.
        """
        examined, lost = time.monotonic(), False
        while True:
            await asyncio.sleep(LEAST_S)
            with contextlib.suppress(TimeoutError):  # unlike wait_for, this loses no cancellation that comes at the same time
                async with asyncio.timeout(CHECK_S - LEAST_S):
                    await self._suspected.wait()
            now = time.monotonic()
            thorough = self._suspected.is_set() or lost or now - examined >= EXAMINE_S
            self._suspected.clear()
            try:
                if thorough:
                    await self._within_limit(self._run(self._examine, self.store.examine), hung)
                await self._within_limit(self.write(self.store.check), hung)
            except OutputError as error:
                lost = isinstance(error, LostError)
                remaining = await self._reopen(error) if lost else error
                if remaining is not None:
                    failed(remaining)
                    self._suspected.clear()  # by those that failed for the same reason meanwhile
            else:
                lost, examined = False, now if thorough else examined
                passed()

    async def prune(self) -> None:
        """Remove old events every PRUNE_S, until cancelled."""
        while True:
            try:
                while await self.write(self.store.prune):
                    pass
            except OutputError as error:
                log.warning("old events were not removed: %s", error)
            await asyncio.sleep(PRUNE_S)

    async def _within_limit(self, check: Coroutine[Any, Any, None], hung: Callable[[OutputError], None]) -> None:
        checking = asyncio.ensure_future(check)
        done, _ = await asyncio.wait({checking}, timeout=HUNG_S)
        if not done:
            hung(OutputError(f"{self.store.path}: the disk has not answered for {HUNG_S:g} s"))
        await checking

    async def _reopen(self, lost: OutputError) -> OutputError | None:
        """Reopen the store, with the reader closed meanwhile; what remains wrong where that fails."""
        try:
            await self._run(self._read, self._close_reader)
            await self.write(self.store.reopen)
        except OutputError as error:
            return lost if isinstance(error, LostError) else error
        return None

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
