from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from stream.queues import BoundedQueue, ClosedError, overlapped

SOON_S = 20.0
"""Longest wait for a thread that should end at once: reached only by a test that fails."""

both_policies = pytest.mark.parametrize("drop_oldest", [True, False])
closing_and_abandoning = pytest.mark.parametrize("end", [BoundedQueue.close, BoundedQueue.abandon])


def on_a_thread(work: Callable[[], object]) -> threading.Event:
    """Set once work has returned."""
    done = threading.Event()
    threading.Thread(target=lambda: (work(), done.set()), daemon=True).start()
    return done


@both_policies
def test_items_come_in_order_and_end_with_the_close(drop_oldest: bool) -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, drop_oldest=drop_oldest)
    for item in range(3):
        queue.put(item)
    queue.close()
    assert [queue.get() for _ in range(4)] == [0, 1, 2, None]
    assert queue.get() is None
    assert queue.dropped == 0


@both_policies
def test_iteration_ends_with_the_close(drop_oldest: bool) -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, drop_oldest=drop_oldest)
    for item in range(3):
        queue.put(item)
    queue.close()
    assert list(queue) == [0, 1, 2]


def test_the_error_of_a_close_is_raised_after_the_waiting_items() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    queue.put(1)
    queue.close(ValueError("broken"))
    queue.close(OSError("later"))
    items = iter(queue)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    with pytest.raises(ValueError, match="broken"):
        queue.get()


def test_a_full_queue_drops_and_counts_the_oldest() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, drop_oldest=True)
    for item in range(10):
        queue.put(item)
    assert (len(queue), queue.dropped) == (3, 7)
    assert [queue.get() for _ in range(3)] == [7, 8, 9]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_queue_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="one item at least"):
        BoundedQueue(capacity)


def test_put_blocks_while_the_queue_is_full() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(0)
    second = on_a_thread(lambda: queue.put(1))
    assert not second.wait(0.05)
    assert queue.get() == 0
    assert second.wait(SOON_S)
    assert (queue.get(), queue.dropped) == (1, 0)


def test_get_times_out() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.01)
    queue.put(5)
    assert queue.get(timeout=0) == 5


@closing_and_abandoning
@pytest.mark.parametrize("consume", [BoundedQueue.get, list])
def test_a_waiting_consumer_wakes_at_the_end(
    consume: Callable[[BoundedQueue[int]], object], end: Callable[[BoundedQueue[int]], None]
) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    ended = on_a_thread(lambda: consume(queue))
    end(queue)
    assert ended.wait(SOON_S)


@closing_and_abandoning
def test_a_waiting_producer_wakes_at_the_end(end: Callable[[BoundedQueue[int]], None]) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(0)

    def produce() -> None:
        with pytest.raises(ClosedError):
            queue.put(1)

    refused = on_a_thread(produce)
    end(queue)
    assert refused.wait(SOON_S)


def test_abandoning_discards_the_waiting_items() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, drop_oldest=True)
    queue.put(0)
    queue.abandon()
    assert (len(queue), queue.get(), list(queue)) == (0, None, [])
    with pytest.raises(ClosedError):
        queue.put(1)


def test_large_items_are_bounded_by_their_bytes() -> None:
    queue: BoundedQueue[bytes] = BoundedQueue(10, drop_oldest=True, max_bytes=100, size_of=len)
    for size in (40, 40, 20, 30):
        queue.put(b"x" * size)
    assert (len(queue), queue.dropped) == (3, 1)
    queue.put(b"x" * 500)
    assert (len(queue), queue.dropped) == (1, 4), "a single item may always wait"
    queue.put(b"x" * 60)
    queue.put(b"x" * 40)
    assert [len(queue.get() or b"") for _ in range(2)] == [60, 40]


def test_put_blocks_while_the_bytes_are_too_many() -> None:
    queue: BoundedQueue[bytes] = BoundedQueue(10, max_bytes=100, size_of=len)
    queue.put(b"x" * 60)
    second = on_a_thread(lambda: queue.put(b"x" * 60))
    assert not second.wait(0.05)
    queue.get()
    assert second.wait(SOON_S)


def test_overlapped_pairs_each_item_with_its_work() -> None:
    with overlapped(range(100), lambda n: n * n, capacity=4) as pairs:
        assert list(pairs) == [(n, n * n) for n in range(100)]


def test_overlapped_holds_no_more_than_its_capacity() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for n in range(1000):
            drawn.append(n)
            yield n

    with overlapped(items(), lambda n: n, capacity=4) as pairs:
        for done, _ in enumerate(pairs, start=1):
            assert len(drawn) - done <= 2 * 4 + 3  # two full queues, and one item in each hand


@pytest.mark.parametrize("where", ["draw", "work"])
def test_a_failure_on_a_thread_reaches_the_consumer_after_what_came_before(where: str) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        if where == "draw":
            raise OSError("gone")
        yield from range(5, 10_000)

    def work(n: int) -> int:
        if where == "work" and n == 5:
            raise OSError("gone")
        return n

    seen = []
    with pytest.raises(OSError, match="gone"), overlapped(items(), work, capacity=2) as pairs:
        for n, _ in pairs:
            seen.append(n)
    assert seen == [0, 1, 2, 3, 4]


def test_leaving_early_ends_both_threads() -> None:
    before = threading.active_count()
    with overlapped(iter(int, 1), lambda n: n, capacity=2) as pairs:
        next(pairs)
    assert threading.active_count() <= before


def test_a_failing_consumer_ends_both_threads() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), overlapped(iter(int, 1), lambda n: n, capacity=2) as pairs:
        next(pairs)
        raise KeyError
    assert threading.active_count() <= before
