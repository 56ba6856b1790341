"""Where one thread leaves items for another that takes them in its own time, and either can end it.

newest      put never waits: a full mailbox loses its oldest item and counts it (a camera's pictures)
otherwise   put waits for room (a file's)

producer    put(item) ...   close()     the consumer takes what is left, then gets None
consumer    get() ...       abandon()   what is left is lost; the producer's next put raises ClosedError
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from stream.channel import ClosedError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """At most capacity items wait."""

    def __init__(self, capacity: int, *, newest: bool) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds one item at least, not {capacity}")
        self.capacity = capacity
        self.newest = newest
        self._changed = threading.Condition()  # guards all fields below
        self._items: deque[T] = deque()
        self._closed = False
        self._dropped = 0

    def put(self, item: T) -> None:
        """Leave item. Raises ClosedError once the mailbox is closed or abandoned, while waiting for room too."""
        with self._changed:
            if not self.newest:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            if self._closed:
                raise ClosedError
            if len(self._items) == self.capacity:
                self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item, waited for; None once closed and empty. Raises TimeoutError after timeout seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._items), timeout):
                raise TimeoutError
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

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
