"""Following the stored events, each once and in order, from a position that outlives the process.

    offer(event)   on the event loop, for each final event as it is sent
    page()         on the outlet's thread: the next events after the position
    delivered(seq) they have arrived: the position is moved, and kept on disk
    restart(seq)   the receiver says that it has the events up to seq

Events come from the queue while it has them all, else from the store: after a restart, and where the queue was full because the
receiver was away. An event is repeated only if it arrived and the process was killed before the position was on disk; its seq
and the store's identity tell receivers so.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from engine.errors import OutputError
from stream.files import write_atomically
from stream.schema import LAST_SEQ

log = logging.getLogger(__name__)

PAGE = 50
"""Events delivered at once."""
QUEUED = 1000
"""Events that wait in memory; the rest are read from the store."""


class Position:
    """The seq of the last event that arrived, in a file of its own; store is the identity of the store that it belongs to.

    Where there is no such file, the position is last, the store's last event: only what happens from now on is delivered. For
    another store than the file's it is 0.
    """

    def __init__(self, path: Path, store: str, last: int) -> None:
        self._path, self._store, self._failed = path, store, False
        found = self._read()
        if found is None:
            self.seq = last
        else:
            self.seq = min(found[1], last) if found[0] == store else 0
        if found != (store, self.seq):
            self.move(self.seq)

    def move(self, seq: int) -> None:
        """Keep a new position; a disk that refuses is reported once, and the position is kept in memory."""
        self.seq = seq
        try:
            write_atomically(self._path, [json.dumps({"store": self._store, "seq": seq}), "\n"])
            self._failed = False
        except OutputError as error:
            if not self._failed:
                log.warning("%s; events may be sent again after a restart", error)
            self._failed = True

    def _read(self) -> tuple[str, int] | None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            store, seq = content["store"], content["seq"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("%s cannot be read (%s); events from now on are sent", self._path, type(error).__name__)
            return None
        if not isinstance(store, str) or not isinstance(seq, int) or not 0 <= seq <= LAST_SEQ:
            log.warning("%s is damaged; events from now on are sent", self._path)
            return None
        return store, seq


class RemotePosition:
    """A position that the receiver keeps."""

    def __init__(self) -> None:
        self.seq = 0

    def move(self, seq: int) -> None:
        """Set a new position."""
        self.seq = seq


class _Position(Protocol):
    seq: int

    def move(self, seq: int) -> None: ...


class StoreFollower:
    """The final events after a position, up to page (PAGE) at once. stored(since, limit) reads them from the store, and raises
    OutputError."""

    def __init__(
        self, stored: Callable[[int, int], list[dict[str, Any]]], position: _Position, *, page: int | None = None
    ) -> None:
        self._stored, self._position, self._page = stored, position, page or PAGE
        self._lock = threading.Lock()  # guards _queue and _complete
        self._queue: deque[Mapping[str, Any]] = deque()
        self._complete = False  # the queue has all events after the position

    def offer(self, event: Mapping[str, Any]) -> None:
        """Queue a final event, which has been stored; never blocks."""
        with self._lock:
            if len(self._queue) >= QUEUED:
                self._queue.clear()
                self._complete = False
            self._queue.append(event)

    def restart(self, seq: int) -> None:
        """Continue after seq, wherever the position was."""
        with self._lock:
            self._complete = False
        self._position.move(seq)

    def page(self) -> Sequence[Mapping[str, Any]]:
        """The next events, in order of their seq, at most a page; empty where there are none now. Raises OutputError."""
        with self._lock:
            complete, self._complete = self._complete, True  # what is offered while the store is read is not missed
        page = [] if complete else self._from_store()
        return page or self._from_queue()

    def delivered(self, seq: int) -> None:
        """The events up to seq have arrived."""
        self._position.move(seq)

    def _from_store(self) -> Sequence[Mapping[str, Any]]:
        page: Sequence[Mapping[str, Any]] | None = None
        try:
            page = self._stored(self._position.seq, self._page)
        finally:
            if page != []:
                with self._lock:
                    self._complete = False
        return page

    def _from_queue(self) -> Sequence[Mapping[str, Any]]:
        """The first events of the queue after the position; they stay in it until they have been delivered."""
        with self._lock:
            while self._queue and self._queue[0]["seq"] <= self._position.seq:
                self._queue.popleft()
            return list(islice(self._queue, self._page)) if self._complete else []
