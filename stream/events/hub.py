"""The service's centre, on its event loop: events are stored, numbered, and sent to whoever follows.

    post(Decided)      waits its turn; a batch of final events is stored in one transaction, then each has its seq and is sent
    remove(stream)     waits its turn behind the events of the stream
    post(the rest)     statuses, signals, activities and pictures are sent at once
    follow(one, since) stored events after since, as fast as it reads; then everything, from the very step that caught up

What is sent is encoded once. A stream's events are sent in their order. While the store cannot be written (a full disk)
clients are informed, provisional events go on, and final ones wait in memory, up to a bound, for the next try.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, Unpack

from engine.errors import OutputError
from stream import protocol as wire
from stream.events.query import Bounds, LostError, Reader, numbered
from stream.events.store import Store
from stream.messages import Acted, Decided, Preview, Signal, SourceKind, SourceStatus
from stream.protocol import Message

log = logging.getLogger(__name__)
R = TypeVar("R")

BATCH = 64
"""The most events stored and sent in one go; between two the loop does other things."""
PAGE = 200
"""Stored events read at once for a client that resumes."""
BACKLOG = 10_000
"""Final events kept in memory while the store cannot be written, 10 MB; beyond it the oldest are lost, which is reported."""
HEARTBEAT_S = 5.0
RETRY_S = (0.25, 5.0)
"""The first and the longest wait between tries to store."""
PRUNE_S = 60.0
WATCH_S = 2.0
"""How often it is looked whether the store's file is in its place; besides, whenever something could not be read."""
LOOK_S = 0.2
"""The least time between two looks, whoever asks for them by reading what cannot be read."""
EXAMINE_S = 300.0
"""How often that file is read, too, beside storing."""
HUNG_S = 5.0
"""A disk that takes longer for a look is reported as hanging."""


class Subscriber(Protocol):
    """Whoever is sent messages."""

    def wants(self, message: Message) -> bool:
        """Whether to send it this message."""

    def send(self, encoded: str | bytes) -> None:
        """Take a message; never blocks, never raises. It may leave the hub meanwhile."""

    async def drained(self) -> None:
        """Return once little of what was sent still waits; raise OSError when the subscriber is gone."""


@dataclass(frozen=True, eq=False)
class _Turn:
    """An event that waits its turn, with what its source was when it came; or, without an event, the end of a stream."""

    stream: str
    decided: Decided | None = None
    source: SourceKind | None = None

    @property
    def final(self) -> bool:
        """Whether it is to be stored."""
        return self.decided is not None and self.decided.event.state == "final"


class Hub:
    """One for a service, used on its loop alone; the store is written on a thread of the hub's, read on a second one, and
    examined for damage on a third.

    model and version are told in hello. evidence says whether an event's pictures can be had. What becomes figures: sent is
    called with every message that goes to all, replayed with how many stored events were sent again, stored with how many
    were stored in how many seconds. Raises OutputError where the store cannot be read.
    """

    def __init__(
        self,
        store: Store,
        *,
        model: str = "",
        version: str = "",
        evidence: Callable[[str], bool] = lambda event: False,
        sent: Callable[[Message], None] = lambda message: None,
        replayed: Callable[[int], None] = lambda events: None,
        stored: Callable[[int, float], None] = lambda events, seconds: None,
        backlog: int = BACKLOG,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.streams: dict[str, SourceStatus] = {}
        self.seq = store.last
        self.lost = 0
        self._failure: str | None = None
        self._unreadable = False  # that failure is one of the store's file: what is in it is not to be had either
        self._held = 0
        self._store = store
        self._reader: Reader | None = Reader(store.path.parent)  # of the reading thread; None while the store is opened again
        self._model, self._version = model, version
        self._evidence, self._sent, self._replayed, self._stored = evidence, sent, replayed, stored
        self._bound, self._heartbeat_s = backlog, heartbeat_s
        self._subscribers: dict[Subscriber, None] = {}
        self._waiting: deque[_Turn] = deque()
        self._posted, self._closing, self._doubt = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._write = ThreadPoolExecutor(1, "store")
        self._read = ThreadPoolExecutor(1, "replay")
        self._examine = ThreadPoolExecutor(1, "examine")
        self._written: Future[None] | None = None  # once `run` has ended: done when the store is in no thread's hand any more

    @property
    def backlog(self) -> int:
        """Events that wait to be stored, those in hand among them."""
        return self._held + len(self._waiting)

    @property
    def damaged(self) -> int:
        """Stored events that were left out so far because they cannot be read."""
        return self._reader.damaged if self._reader else 0

    @property
    def subscribers(self) -> int:
        """How many get everything that is sent, those still catching up not among them."""
        return len(self._subscribers)

    # What the threads hand over, brought to the loop.

    def post(self, item: Decided | SourceStatus | Signal | Acted | Preview) -> None:
        """Take what a source's threads have; on the loop."""
        if isinstance(item, Decided):
            status = self.streams.get(item.event.stream)
            self._queue(_Turn(item.event.stream, item, None if status is None else status.kind))
        elif isinstance(item, SourceStatus):
            self.streams[item.stream] = item
            self.publish(wire.status(item))
        elif isinstance(item, Signal):
            self.publish(wire.signal(item))
        elif isinstance(item, Acted):
            self.publish(wire.activity(item))
        else:
            self.publish(wire.preview(item))

    def remove(self, stream: str) -> None:
        """A stream that came and went is gone, which is told behind its events."""
        self._queue(_Turn(stream))

    def _queue(self, turn: _Turn) -> None:
        if not turn.final and (self._failure is not None or not self.backlog):
            self._send_unstored(turn)
            return
        self._waiting.append(turn)
        if len(self._waiting) > self._bound:
            oldest = self._waiting.popleft()
            if oldest.final:
                self.lost += 1
            else:
                self._send_unstored(oldest)
        self._posted.set()

    # Those who follow.

    def hello(self) -> Message:
        """What a client is told first."""
        return wire.hello(
            self.streams.values(),
            model=self._model,
            version=self._version,
            seq=self.seq,
            store=self._store.identity,
            now=time.time(),
            problem=self.problem,
        )

    def join(self, subscriber: Subscriber) -> None:
        """From now on subscriber gets what is sent; it is told how each source is doing."""
        self._subscribers[subscriber] = None
        for status in list(self.streams.values()):
            self._offer(subscriber, wire.status(status))

    def leave(self, subscriber: Subscriber) -> None:
        """Send subscriber nothing more; one that never joined is no error."""
        self._subscribers.pop(subscriber, None)

    def follow(self, subscriber: Subscriber, since: int | None = None) -> Coroutine[Any, Any, None]:
        """Send the stored events after since, none twice and none left out, and join; None: those after this very call.

        Returns when the subscriber has joined. Raises OSError from its `drained`, OutputError where the store cannot be read.
        """
        return self._follow(subscriber, self.seq if since is None else since)

    async def _follow(self, subscriber: Subscriber, at: int) -> None:
        if at > self.seq:
            told = f"since is {at} and the last event of this store is {self.seq}; what is sent from here on is another store's"
            subscriber.send(wire.error("since", told).encoded)
        told_at = time.monotonic()
        while at < self.seq:  # what is stored but not yet sent to all comes with the rest, after joining
            upto = self.seq
            page = await self.stored(at, upto=upto, limit=PAGE)
            await self._replay(subscriber, page)
            at = upto if len(page) < PAGE else page[-1]["seq"]
            if time.monotonic() - told_at >= self._heartbeat_s:  # it may want nothing of all this, and would hear nothing
                told_at = time.monotonic()
                subscriber.send(wire.heartbeat(now=time.time(), seq=at, problem=self.problem).encoded)
        self.join(subscriber)

    async def _replay(self, subscriber: Subscriber, page: Sequence[dict[str, Any]]) -> None:
        count = 0
        for event in page:
            message = wire.expression(event, evidence=self._evidence(event["id"]))
            if subscriber.wants(message):
                subscriber.send(message.encoded)
                count += 1
                await subscriber.drained()
        self._replayed(count)
        await asyncio.sleep(0)

    async def stored(self, since: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Stored events, as `Store.since`. Raises OutputError where they cannot be read, OSError where the service ends."""
        if self._closing.is_set():
            raise ConnectionAbortedError("the service ends")
        if self._unreadable:
            raise OutputError(str(self.problem))
        try:
            return await self._on(self._read, partial(self._look_up, since, bounds))
        except OutputError:
            self._doubt.set()
            raise

    def _look_up(self, since: int, bounds: Bounds) -> list[dict[str, Any]]:
        """On the reading thread; at the end those that still wait for it are done with at once."""
        if self._closing.is_set():
            raise ConnectionAbortedError("the service ends")
        if self._reader is None:
            self._reader = Reader(self._store.path.parent)
        return self._reader.since(since, **bounds)

    def _stop_reading(self) -> None:
        """On the reading thread."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def publish(self, message: Message) -> None:
        """Send message to all who want it."""
        self._sent(message)
        for subscriber in list(self._subscribers):
            self._offer(subscriber, message)

    def _offer(self, subscriber: Subscriber, message: Message) -> None:
        try:
            if subscriber.wants(message):
                subscriber.send(message.encoded)
        except Exception:  # one subscriber's defect is not the others'
            log.exception("a subscriber failed and is sent nothing more")
            self.leave(subscriber)

    # The publisher.

    async def run(self) -> None:
        """Store, number and send what is posted until `close`; what waits then is stored before this returns.

        Cancelled, it ends at once; a store that hangs then hangs on a thread that nobody waits for.
        """
        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(work()) for work in (self._beat, self._prune, self._watch)]
                await self._publish_posted()
                for task in others:
                    task.cancel()
        finally:
            self._closing.set()
            self._written = self._let_go()
            if self._waiting:
                log.error("%s; the service ends and they are lost", self.problem)
        await asyncio.shield(asyncio.wrap_future(self._written))

    def _let_go(self) -> Future[None]:
        """End the threads behind what they are at, without waiting for it; done when that of the store has ended."""
        self._examine.shutdown(wait=False)
        self._read.submit(self._stop_reading)
        self._read.shutdown(wait=False)
        written = self._write.submit(lambda: None)
        self._write.shutdown(wait=False)
        return written

    def at_rest(self, act: Callable[[], None]) -> None:
        """Have act done, on any thread, once no thread of the hub's uses the store; to be called after `run` has ended."""
        if self._written is None:
            act()
        else:
            self._written.add_done_callback(lambda _: act())

    def close(self) -> None:
        """Let `run` store what waits, trying once more where the store fails, and return."""
        self._closing.set()
        self._posted.set()

    async def _publish_posted(self) -> None:
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                if not await self._settle(batch):
                    return
            if self._closing.is_set():
                return

    async def _settle(self, batch: list[_Turn]) -> bool:
        """Store the final ones of a batch and send all of it in order; False where the service ends before that works."""
        delay, longest = RETRY_S
        while True:
            self._held = len(batch)
            events = [self._stamped(turn.decided) for turn in batch if turn.decided is not None and turn.final]
            try:
                numbers = await self._append(events) if events else []
            except OutputError as error:
                batch = self._failed(error, batch)
                if self._closing.is_set():
                    self._held = 0
                    self._waiting.extendleft(reversed(batch))
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._closing.wait()
                delay = min(2 * delay, longest)
            else:
                self._held = 0
                self._works()
                self._send_settled(batch, list(map(numbered, events, numbers)))
                return True

    async def _append(self, events: Sequence[dict[str, Any]]) -> list[int]:
        started = time.monotonic()
        numbers = await self._on(self._write, partial(self._store.append, events))
        self._stored(len(events), time.monotonic() - started)
        return numbers

    def _send_settled(self, batch: Sequence[_Turn], events: Sequence[dict[str, Any]]) -> None:
        """The batch in order; events are its final ones, numbered."""
        finals = iter(events)
        for turn in batch:
            if turn.decided is not None and turn.final:
                event = next(finals)
                self.seq = event["seq"]
                self.publish(wire.expression(event, evidence=turn.decided.evidence, source=turn.source))
            else:
                self._send_unstored(turn)

    def _send_unstored(self, turn: _Turn) -> None:
        """What goes out without being stored: a provisional event, or that a stream is gone."""
        if turn.decided is not None:
            event = self._stamped(turn.decided)
            self.publish(wire.expression(event, evidence=turn.decided.evidence, source=turn.source))
        elif self.streams.pop(turn.stream, None) is not None:
            self.publish(wire.removed(turn.stream))

    @staticmethod
    def _stamped(decided: Decided) -> dict[str, Any]:
        return wire.stamped(decided, monotonic=time.monotonic(), now=time.time())

    # A store that cannot be written.

    @property
    def problem(self) -> str | None:
        """Why events are not stored, in one sentence; None while all is well."""
        if self._failure is None:
            return None
        lost = f", {self.lost} are lost" if self.lost else ""
        return f"events cannot be stored ({self._failure}): {self.backlog} wait in memory{lost}"

    def _failed(self, error: OutputError, batch: list[_Turn]) -> list[_Turn]:
        """Tell it, once a failure, send what needs no store among all that waits, and return the batch's final events."""
        unstored = [turn for turn in (*batch, *self._waiting) if not turn.final]
        batch = [turn for turn in batch if turn.final]
        self._waiting = deque(turn for turn in self._waiting if turn.final)
        self._held = len(batch)
        for turn in unstored:
            self._send_unstored(turn)
        self._tell_failure(error)
        return batch

    def _tell_failure(self, error: OutputError) -> None:
        first, self._failure, self._unreadable = self._failure is None, str(error), isinstance(error, LostError)
        if self._unreadable:
            self._doubt.set()
        if first:
            log.error("%s", self.problem)
            self.publish(wire.error("store", self.problem))
            self._tell_heartbeat()

    def _works(self) -> None:
        """Tell, once, that events are stored again, and how many were lost for want of room."""
        if self._failure is None and not self.lost:
            return
        lost, self._failure, self._unreadable, self.lost = self.lost, None, False, 0
        log.warning("events are stored again; %d were lost", lost)
        if lost:
            self.publish(wire.error("lost", f"{lost} events were lost while they could not be stored"))
        self._tell_heartbeat()

    # What is due from time to time.

    def _tell_heartbeat(self) -> None:
        self.publish(wire.heartbeat(now=time.time(), seq=self.seq, problem=self.problem))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._tell_heartbeat()

    async def _prune(self) -> None:
        while True:
            try:
                while await self._on(self._write, self._store.prune):
                    pass
            except OutputError as error:
                log.warning("old events were not removed: %s", error)
            await asyncio.sleep(PRUNE_S)

    async def _watch(self) -> None:
        """Notice what goes wrong with the store though nothing is stored or read, and mend it where that can be done."""
        examined = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(TimeoutError):  # unlike wait_for, this loses no cancellation that comes at the same time
                async with asyncio.timeout(WATCH_S - LOOK_S):
                    await self._doubt.wait()
            now = time.monotonic()
            thorough = self._doubt.is_set() or self._unreadable or now - examined >= EXAMINE_S
            self._doubt.clear()
            try:
                if thorough:
                    await self._looked(self._examine, self._store.examine)
                await self._looked(self._write, self._store.check)
            except OutputError as error:
                await self._troubled(error)
            else:
                examined = now if thorough else examined
                if not self.backlog:
                    self._works()

    async def _looked(self, thread: ThreadPoolExecutor, look: Callable[[], None]) -> None:
        """Have a thread look; report where that takes too long, as it does where the disk hangs."""
        looking = asyncio.ensure_future(self._on(thread, look))
        done, _ = await asyncio.wait({looking}, timeout=HUNG_S)
        if not done:
            self._tell_failure(OutputError(f"{self._store.path}: the disk has not answered for {HUNG_S:g} s"))
        await looking

    async def _troubled(self, error: OutputError) -> None:
        """Reopen the store where that helps, else report what is wrong with it."""
        if isinstance(error, LostError):
            await self._on(self._read, self._stop_reading)
            try:
                await self._on(self._write, self._store.reopen)
                return
            except OutputError as remaining:
                error = error if isinstance(remaining, LostError) else remaining
        if not self._held:
            self._failed(error, [])
        self._doubt.clear()  # looked at already

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        """What work returns, done on one of the hub's threads."""
        return await asyncio.get_running_loop().run_in_executor(thread, work)
