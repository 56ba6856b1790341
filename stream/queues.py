"""A bounded queue between two threads that either side can close, and work done on threads of its own through such queues.

producer   put(item) ...    close()        the consumer gets the waiting items, then the end
                            close(error)   the consumer gets the waiting items, then error is raised
consumer   get(), or for    abandon()      waiting items are discarded; the producer's next put raises ClosedError
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ClosedError(Exception):
    """The queue takes no more items; a signal between threads, never shown to a user."""


class BoundedQueue(Generic[T]):
    """At most capacity items wait, of at most max_bytes together by size_of; a single item may always wait.

    When full, put drops the oldest items (drop_oldest, for live video) or blocks until there is room (for files). Items are
    never None, which is what `get` returns at the end. Raises ValueError for a capacity below 1.
    """

    def __init__(
        self, capacity: int, *, drop_oldest: bool = False, max_bytes: int = 0, size_of: Callable[[T], int] = lambda item: 0
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a queue has room for one item at least, not {capacity}")
        self._capacity, self._drop_oldest, self._max_bytes, self._size_of = capacity, drop_oldest, max_bytes, size_of
        self._changed = threading.Condition()  # guards all fields below
        self._items: deque[T] = deque()
        self._bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._dropped = 0

    def put(self, item: T) -> None:
        """Add item. Raises ClosedError once the queue is closed or abandoned, also while waiting for room."""
        size = self._size_of(item)
        with self._changed:
            if not self._drop_oldest:
                self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                raise ClosedError
            while not self._has_room(size):
                self._pop()
                self._dropped += 1
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item; None once the queue is closed and empty, or raises the error it was closed with.

        Raises TimeoutError after timeout seconds without an item.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._items), timeout):
                raise TimeoutError
            if self._items:
                self._changed.notify_all()
                return self._pop()
            if self._error is not None:
                raise self._error
            return None

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def close(self, error: BaseException | None = None) -> None:
        """End the input; the consumer gets the waiting items, after which error, if given, is raised."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """End the output: discard the waiting items and wake the producer."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """How many items were dropped to make room for newer ones."""
        with self._changed:
            return self._dropped

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def _has_room(self, size: int) -> bool:
        return not self._items or (len(self._items) < self._capacity and self._bytes + size <= self._max_bytes)

    def _pop(self) -> T:
        item = self._items.popleft()
        self._bytes -= self._size_of(item)
        return item


@contextmanager
def overlapped(items: Iterable[T], work: Callable[[T], R], *, capacity: int) -> Iterator[Iterator[tuple[T, R]]]:
    """(item, work(item)) in order, with items drawn on one thread and work done on a second one.

    Leaving the block stops and joins both threads. An error on either of them is raised to the consumer, after the items before
    it.
    """
    drawn: BoundedQueue[T] = BoundedQueue(capacity)
    done: BoundedQueue[tuple[T, R]] = BoundedQueue(capacity)
    threads = [
        threading.Thread(target=_pump, args=(items, drawn), name="draw", daemon=True),
        threading.Thread(target=_pump, args=(((item, work(item)) for item in drawn), done), name="work", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield iter(done)
    finally:
        done.abandon()
        drawn.abandon()
        for thread in threads:
            thread.join()


def _pump(items: Iterable[T], queue: BoundedQueue[T]) -> None:
    try:
        for item in items:
            queue.put(item)
    except ClosedError:
        return
    except BaseException as error:  # noqa: BLE001 - passed on to the consumer, where it is raised
        queue.close(error)
    else:
        queue.close()
