"""Supervision of the store's file: checked at intervals and after errors, reopened where it was removed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from engine.errors import OutputError
from stream.events.database import LostError
from stream.events.store_threads import StoreThreads

CHECK_S = 2.0
"""Time between two checks that the file is in its place."""
LEAST_S = 0.2
"""The least time between two checks, however often `suspect` is called."""
EXAMINE_S = 300.0
"""Time between two checks that read the file as well."""
HUNG_S = 5.0
"""A check that takes longer is reported: the disk does not answer."""


class StoreMonitor:
    """Finds what is wrong with the store even while nothing is stored or read, and repairs it where that is possible.

    `run` calls, on the loop: failed with the error of a check that the store cannot be reopened after, hung with an error while
    a check takes longer than HUNG_S, passed after a check without error.
    """

    def __init__(
        self,
        threads: StoreThreads,
        *,
        failed: Callable[[OutputError], None],
        hung: Callable[[OutputError], None],
        passed: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._failed, self._hung, self._passed = failed, hung, passed
        self._suspected = asyncio.Event()

    def suspect(self) -> None:
        """Have the file read and checked soon: storing or reading has failed."""
        self._suspected.set()

    async def run(self) -> None:
        """Check for ever, until cancelled."""
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
                    await self._within_limit(self._threads.examine())
                await self._within_limit(self._threads.write(self._threads.store.check))
            except OutputError as error:
                lost = isinstance(error, LostError)
                await self._repair(error)
            else:
                lost, examined = False, now if thorough else examined
                self._passed()

    async def _within_limit(self, check: Coroutine[Any, Any, None]) -> None:
        checking = asyncio.ensure_future(check)
        done, _ = await asyncio.wait({checking}, timeout=HUNG_S)
        if not done:
            self._hung(OutputError(f"{self._threads.store.path}: the disk has not answered for {HUNG_S:g} s"))
        await checking

    async def _repair(self, error: OutputError) -> None:
        """Reopen the store after LostError; report what remains wrong."""
        if isinstance(error, LostError):
            try:
                await self._threads.reopen()
                return
            except OutputError as remaining:
                error = error if isinstance(remaining, LostError) else remaining
        self._failed(error)
        self._suspected.clear()  # by those that failed for the same reason meanwhile
