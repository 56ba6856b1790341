"""The centre of the service, on its event loop: stores events, numbers them, and sends them to the subscribers.

    post(Decided)      is queued, as is Forwarded; a batch of final events is stored in one transaction, then sent with its seq
    remove(stream)     is queued behind the events of the stream
    post(the rest)     statuses, signals, activities and previews are sent at once
    follow(one, since) sends stored events after since, as fast as the subscriber reads, and then whatever is sent

A message is encoded once, and a stream's events are sent in their order. While the store cannot be written (a full disk),
subscribers are informed, provisional events are sent, and final ones wait in memory, up to a limit, for the next attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

from engine.errors import OutputError
from stream import protocol
from stream.backoff import Backoff
from stream.events.database import LostError
from stream.events.query import Bounds, numbered
from stream.events.store import Store
from stream.events.store_threads import StoreThreads
from stream.events.subscribers import Subscriber, Subscribers
from stream.messages import Acted, Decided, Forwarded, NodeStatus, Preview, Signal, SourceKind, SourceStatus
from stream.protocol import Message

log = logging.getLogger(__name__)

BATCH = 64
"""The most events stored and sent at once; between two batches the loop does other things."""
PAGE = 200
"""Stored events read at once for a subscriber that resumes."""
BACKLOG = 10_000
"""Final events kept in memory while the store cannot be written, 10 MB; beyond it the oldest are lost, which is reported."""
HEARTBEAT_S = 5.0
RETRY_S = (0.25, 5.0)
"""The first and the longest wait between attempts to store."""


@dataclass(frozen=True, eq=False)
class _Queued:
    """An event in the queue, with the kind of its source when it was posted; without an event, the removal of a stream."""

    stream: str
    decided: Decided | Forwarded | None = None
    source: SourceKind | None = None

    @property
    def final(self) -> bool:
        """Whether it is to be stored."""
        if isinstance(self.decided, Forwarded):
            return "node_seq" in self.decided.body
        return self.decided is not None and self.decided.event.state == "final"


class Hub:
    """One per service, used on its event loop alone.

    model and version are sent in hello. evidence says whether an event's pictures are kept. For metrics: sent is called with
    every message sent to all, replayed with the number of stored events sent again, store_seconds with how long storing a
    batch took. Raises OutputError where the store cannot be read.
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
        store_seconds: Callable[[float], None] = lambda seconds: None,
        backlog: int = BACKLOG,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.streams: dict[str, SourceStatus] = {}
        self.nodes: dict[str, NodeStatus] | None = None  # of a fleet
        self.seq = store.last
        self.lost = 0
        self._store = store
        self._failure: OutputError | None = None
        self._outside: str | None = None
        self._batch = 0  # events that are being stored
        self.threads = StoreThreads(store)
        self._model, self._version = model, version
        self._evidence, self._replayed, self._store_seconds = evidence, replayed, store_seconds
        self._limit, self._heartbeat_s = backlog, heartbeat_s
        self._subscribers = Subscribers(sent)
        self._queue: deque[_Queued] = deque()
        self._posted, self._closing, self._stored = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def backlog(self) -> int:
        """Events that are queued or being stored."""
        return self._batch + len(self._queue)

    @property
    def subscribers(self) -> int:
        """How many are sent everything, those still in a replay not included."""
        return len(self._subscribers)

    # Posting.

    def post(self, item: Decided | Forwarded | SourceStatus | NodeStatus | Signal | Acted | Preview) -> None:
        """Send what a source's threads, or a node, handed over, events in their turn."""
        if isinstance(item, Decided | Forwarded):
            stream = item.event.stream if isinstance(item, Decided) else str(item.body["stream"])
            status = self.streams.get(stream)
            self._enqueue(_Queued(stream, item, None if status is None else status.kind))
        elif isinstance(item, SourceStatus):
            self.streams[item.stream] = item
            self._subscribers.publish(protocol.status(item))
        elif isinstance(item, NodeStatus):
            self.nodes = {} if self.nodes is None else self.nodes
            self.nodes[item.name] = item
            if item.state == "removed":
                del self.nodes[item.name]
            self._subscribers.publish(protocol.node(item))
        elif isinstance(item, Signal):
            self._subscribers.publish(protocol.signal(item))
        elif isinstance(item, Acted):
            self._subscribers.publish(protocol.activity(item))
        else:
            self._subscribers.publish(protocol.preview(item))

    async def room(self, most: int) -> None:
        """Return once at most so many events are queued or being stored."""
        while self.backlog > most:
            self._stored.clear()
            await self._stored.wait()

    def pass_on(self, message: Message) -> None:
        """Send a message that is not stored, as another node made it."""
        self._subscribers.publish(message)

    def remove(self, stream: str) -> None:
        """Report, behind the stream's events, that it was removed."""
        self._enqueue(_Queued(stream))

    def _enqueue(self, item: _Queued) -> None:
        if not item.final and (self._failure is not None or not self.backlog):
            self._send(item)
            return
        self._queue.append(item)
        if len(self._queue) > self._limit:
            oldest = self._queue.popleft()
            if oldest.final:
                self.lost += 1
            else:
                self._send(oldest)
        self._posted.set()

    # Subscribers.

    def hello(self) -> Message:
        """The first message to a client."""
        return protocol.hello(
            self.streams.values(),
            model=self._model,
            version=self._version,
            seq=self.seq,
            store=self._store.identity,
            now=time.time(),
            problem=self.problem,
            nodes=None if self.nodes is None else [self.nodes[name] for name in sorted(self.nodes)],
        )

    def join(self, subscriber: Subscriber) -> None:
        """Send subscriber every source's status now, and from now on what is sent to all."""
        self._subscribers.add(subscriber)
        for status in self.streams.values():
            self._subscribers.offer(subscriber, protocol.status(status))

    def leave(self, subscriber: Subscriber) -> None:
        """Send subscriber nothing more; no error where it never joined."""
        self._subscribers.remove(subscriber)

    async def follow(self, subscriber: Subscriber, since: int) -> None:
        """Send the stored events after since, none twice and none left out, and join.

        Returns when the subscriber has joined. Raises OSError from its `drained`, OutputError where the store cannot be read.
        """
        at = since
        if at > self.seq:
            sentence = (
                f"since is {at} and the last event of this store is {self.seq}; what is sent from here on is another store's"
            )
            subscriber.write(protocol.error("since", sentence).encoded)
        heartbeat = time.monotonic()
        while at < self.seq:  # what is stored but not yet sent to all is sent after joining
            upto = self.seq
            page = await self.stored(at, upto=upto, limit=PAGE)
            await self._replay(subscriber, page)
            at = upto if len(page) < PAGE else page[-1]["seq"]
            if time.monotonic() - heartbeat >= self._heartbeat_s:  # the subscriber may want none of these events
                heartbeat = time.monotonic()
                subscriber.write(protocol.heartbeat(now=time.time(), seq=at, problem=self.problem).encoded)
        self.join(subscriber)

    async def _replay(self, subscriber: Subscriber, page: Sequence[dict[str, Any]]) -> None:
        count = 0
        for event in page:
            message = protocol.expression(event, evidence=self._evidence(event["id"]))
            if subscriber.wants(message):
                subscriber.write(message.encoded)
                count += 1
                await subscriber.drained()
        self._replayed(count)
        await asyncio.sleep(0)

    async def stored(self, since: int, **bounds: Unpack[Bounds]) -> list[dict[str, Any]]:
        """Stored events, as `Reader.since`. Raises OutputError where they cannot be read, ConnectionAbortedError where the
        service is ending."""
        if self._closing.is_set():
            raise ConnectionAbortedError("the service ends")
        if isinstance(self._failure, LostError):
            raise OutputError(str(self.problem))
        try:
            return await self.threads.since(since, **bounds)
        except OutputError:
            self.threads.suspect()
            raise

    # Running.

    async def run(self) -> None:
        """Store, number and send what is posted until `close`; what is queued then is stored before this returns.

        Cancelled, it ends at once; a store that hangs then hangs on a thread that nothing waits for.
        """
        monitoring = self.threads.monitor(failed=self._check_failed, hung=self._report_failure, passed=self._check_passed)
        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(work) for work in (self._send_heartbeats(), self.threads.prune(), monitoring)]
                await self._store_posted()
                for task in others:
                    task.cancel()
        finally:
            self._closing.set()
            self.threads.shut_down()
            if self._queue:
                again = all(isinstance(item.decided, Forwarded) for item in self._queue)
                ends = "they are read again after the next start" if again else "they are lost"
                log.error("%s; the service ends and %s", self.problem, ends)
        await self.threads.released()

    def close(self) -> None:
        """Let `run` store what is queued, with one more attempt where the store fails, and return."""
        self._closing.set()
        self.threads.refuse_reads()
        self._posted.set()

    async def _store_posted(self) -> None:
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                if not await self._store_batch(batch):
                    return
            if self._closing.is_set():
                return

    async def _store_batch(self, batch: list[_Queued]) -> bool:
        """Store the final events of a batch and send all of it in order; False where the service ends before that succeeds."""
        backoff = Backoff(*RETRY_S)
        while True:
            self._batch = len(batch)
            events = [self._stamped(item.decided) for item in batch if item.decided is not None and item.final]
            started = time.monotonic()
            try:
                numbers = await self.threads.write(partial(self._store.append, events)) if events else []
            except OutputError as error:
                batch = self._store_failed(error, batch)
                if self._closing.is_set():
                    self._batch = 0
                    self._queue.extendleft(reversed(batch))
                    return False
                if isinstance(error, LostError):
                    self.threads.suspect()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._closing.wait()
            else:
                if events:
                    self._store_seconds(time.monotonic() - started)
                self._batch = 0
                self._report_recovery()
                stored = map(numbered, events, numbers)
                for item in batch:
                    event = next(stored) if item.final else None
                    self.seq = event["seq"] if event else self.seq
                    self._send(item, event)
                self._stored.set()
                return True

    def _send(self, item: _Queued, stored: dict[str, Any] | None = None) -> None:
        """Send an event as it was stored or, without that, as it is now; or the removal of a stream."""
        if item.decided is not None:
            event = stored or self._stamped(item.decided)
            origin = item.decided if isinstance(item.decided, Decided) else None
            evidence = origin is not None and origin.evidence
            self._subscribers.publish(protocol.expression(event, evidence=evidence, source=item.source, origin=origin))
        elif self.streams.pop(item.stream, None) is not None:
            self._subscribers.publish(protocol.removed(item.stream))

    @staticmethod
    def _stamped(decided: Decided | Forwarded) -> dict[str, Any]:
        if isinstance(decided, Forwarded):
            return dict(decided.body)
        return protocol.stamped(decided, monotonic=time.monotonic(), now=time.time())

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        self._subscribers.publish(protocol.heartbeat(now=time.time(), seq=self.seq, problem=self.problem))

    # A store that cannot be written.

    @property
    def problem(self) -> str | None:
        """Why events are not stored, or do not come, in one sentence; None while they are and do."""
        if self._failure is None:
            return self._outside
        lost = f", {self.lost} are lost" if self.lost else ""
        return f"events cannot be stored ({self._failure}): {self.backlog} wait in memory{lost}"

    def report_outside(self, problem: str | None) -> None:
        """Tell the subscribers why no events come from elsewhere, in one sentence; None: they come."""
        if problem != self._outside:
            self._outside = problem
            self._send_heartbeat()

    def _store_failed(self, error: OutputError, batch: list[_Queued]) -> list[_Queued]:
        """Send all queued items that need no store, report the failure, and return the batch's final events."""
        unstored = [item for item in (*batch, *self._queue) if not item.final]
        batch = [item for item in batch if item.final]
        self._queue = deque(item for item in self._queue if item.final)
        self._batch = len(batch)
        for item in unstored:
            self._send(item)
        self._report_failure(error)
        return batch

    def _report_failure(self, error: OutputError) -> None:
        first, self._failure = self._failure is None, error
        if first:
            log.error("%s", self.problem)
            self._subscribers.publish(protocol.error("store", self.problem))
            self._send_heartbeat()

    def _report_recovery(self) -> None:
        """Report, once, that events are stored again, and how many were lost for want of memory."""
        if self._failure is None and not self.lost:
            return
        lost, self._failure, self.lost = self.lost, None, 0
        log.warning("events are stored again; %d were lost", lost)
        if lost:
            self._subscribers.publish(protocol.error("lost", f"{lost} events were lost while they could not be stored"))
        self._send_heartbeat()

    def _check_failed(self, error: OutputError) -> None:
        if not self._batch:  # else storing the batch fails as well, and reports it
            self._store_failed(error, [])

    def _check_passed(self) -> None:
        if not self.backlog:
            self._report_recovery()
