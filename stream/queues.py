"""A bounded queue between two threads that either side can close; a death on one side wakes the other.

producer   put(item) ...   close()          the consumer drains what is left, then ends
                           close(error)     the consumer drains what is left, then raises error
consumer   for item in channel: ...         abandon() drops the rest; the producer's next put raises ClosedError
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
    """Nobody takes items from this channel any more; a signal between threads, never shown to a user."""


class Channel(Generic[T]):
    """At most capacity items wait; put blocks while it is full, iteration while it is empty."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._changed = threading.Condition()  # guards all fields below
        self._items: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add item, waiting for room. Raises ClosedError once the channel is closed or abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """End the stream of items; the consumer raises error, if one is given, after the last of them."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Take no more: drop what waits and wake the producer."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


@contextmanager
def overlapped(items: Iterable[T], work: Callable[[T], R], *, capacity: int) -> Iterator[Iterator[tuple[T, R]]]:
    """(item, work(item)) in order, with items drawn on one thread and work done on a second one.

    Both threads start and end here: leaving the block stops and joins them. What either raises is raised to the consumer, after
    all that came before it.
    """
    drawn: Channel[T] = Channel(capacity)
    done: Channel[tuple[T, R]] = Channel(capacity)
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


def _pump(items: Iterable[T], channel: Channel[T]) -> None:
    try:
        for item in items:
            channel.put(item)
    except ClosedError:
        return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
        channel.close(error)
    else:
        channel.close()
