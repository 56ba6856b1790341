"""Where one thread leaves items for another that takes them in its own time, and either can end it.

newest      put never waits: a full mailbox loses its oldest item and counts it (a camera's pictures)
otherwise   put waits for room (a file's)

producer    put(item) ...   close()     the consumer takes what is left, then gets None
consumer    get() ...       abandon()   what is left is lost; the producer's next put raises ClosedError
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from stream.queues import ClosedError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """At most capacity items wait, of at most so many bytes together as weigh tells of each; one may always wait."""

    def __init__(self, capacity: int, *, newest: bool, most_bytes: int = 0, weigh: Callable[[T], int] = lambda item: 0) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds one item at least, not {capacity}")
        self.capacity = capacity
        self.newest = newest
        self._most_bytes, self._weigh = most_bytes, weigh
        self._changed = threading.Condition()  # guards all fields below
        self._items: deque[T] = deque()
        self._bytes = 0
        self._closed = False
        self._dropped = 0

    def put(self, item: T) -> None:
        """Leave item. Raises ClosedError once the mailbox is closed or abandoned, while waiting for room too."""
        weight = self._weigh(item)
        with self._changed:
            if not self.newest:
                self._changed.wait_for(lambda: self._closed or self._has_room(weight))
            if self._closed:
                raise ClosedError
            while not self._has_room(weight):
                self._bytes -= self._weigh(self._items.popleft())
                self._dropped += 1
            self._items.append(item)
            self._bytes += weight
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item, waited for; None once closed and empty. Raises TimeoutError after timeout seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._items), timeout):
                raise TimeoutError
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= self._weigh(item)
            self._changed.notify_all()
            return item

    def _has_room(self, weight: int) -> bool:
        return not self._items or (len(self._items) < self.capacity and self._bytes + weight <= self._most_bytes)

    def close(self) -> None:
        """Take no more; what waits can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Take no more, and lose what waits."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """How many items were lost to newer ones."""
        with self._changed:
            return self._dropped

    @property
    def closed(self) -> bool:
        """Whether no more is taken."""
        with self._changed:
            return self._closed

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)
