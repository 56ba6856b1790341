from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stream.queues import Channel, ClosedError, overlapped

SOON_S = 10.0
"""Longest wait for a thread that should end at once: reached only by a test that fails."""


def test_items_come_in_order_and_end_with_the_close() -> None:
    channel: Channel[int] = Channel(3)
    for item in range(3):
        channel.put(item)
    channel.close()
    assert list(channel) == [0, 1, 2]


def test_an_error_comes_after_what_was_put_before_it() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.close(ValueError("broken"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_put_waits_for_room() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    second_put = threading.Event()

    def produce() -> None:
        channel.put(1)
        second_put.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not second_put.wait(0.05)
    assert next(iter(channel)) == 0
    assert second_put.wait(SOON_S)
    thread.join(SOON_S)


def test_abandoning_wakes_a_waiting_producer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    refused = threading.Event()

    def produce() -> None:
        with pytest.raises(ClosedError):
            channel.put(1)
        refused.set()

    thread = threading.Thread(target=produce)
    thread.start()
    channel.abandon()
    assert refused.wait(SOON_S)
    thread.join(SOON_S)
    assert list(channel) == []


def test_closing_wakes_a_waiting_consumer() -> None:
    channel: Channel[int] = Channel(1)
    ended = threading.Event()

    def consume() -> None:
        assert list(channel) == []
        ended.set()

    thread = threading.Thread(target=consume)
    thread.start()
    channel.close()
    assert ended.wait(SOON_S)
    thread.join(SOON_S)


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
            assert len(drawn) - done <= 2 * 4 + 3  # two full channels, and one item in each hand


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
    assert threading.active_count() == before


def test_a_failing_consumer_ends_both_threads() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), overlapped(iter(int, 1), lambda n: n, capacity=2) as pairs:
        next(pairs)
        raise KeyError
    assert threading.active_count() == before
