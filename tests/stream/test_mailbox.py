from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from stream.mailbox import Mailbox
from stream.queues import ClosedError

SOON_S = 20.0
"""Longest wait for a thread that should end at once: reached only by a test that fails."""


def on_a_thread(work: Callable[[], object]) -> threading.Event:
    """Set once work has returned."""
    done = threading.Event()
    threading.Thread(target=lambda: (work(), done.set()), daemon=True).start()
    return done


@pytest.mark.parametrize("newest", [True, False])
def test_items_come_in_order_and_end_with_the_close(newest: bool) -> None:
    box: Mailbox[int] = Mailbox(3, newest=newest)
    for item in range(3):
        box.put(item)
    box.close()
    assert [box.get() for _ in range(4)] == [0, 1, 2, None]
    assert box.get() is None
    assert box.dropped == 0


def test_the_newest_are_kept_and_the_lost_counted() -> None:
    box: Mailbox[int] = Mailbox(3, newest=True)
    for item in range(10):
        box.put(item)
    assert (len(box), box.dropped) == (3, 7)
    assert [box.get() for _ in range(3)] == [7, 8, 9]


def test_put_waits_for_room_where_nothing_may_be_lost() -> None:
    box: Mailbox[int] = Mailbox(1, newest=False)
    box.put(0)
    second = on_a_thread(lambda: box.put(1))
    assert not second.wait(0.05)
    assert box.get() == 0
    assert second.wait(SOON_S)
    assert (box.get(), box.dropped) == (1, 0)


def test_get_waits_no_longer_than_told() -> None:
    box: Mailbox[int] = Mailbox(1, newest=True)
    with pytest.raises(TimeoutError):
        box.get(timeout=0.01)
    box.put(5)
    assert box.get(timeout=0) == 5


@pytest.mark.parametrize("end", [Mailbox.close, Mailbox.abandon])
def test_ending_wakes_a_waiting_consumer(end: Callable[[Mailbox[int]], None]) -> None:
    box: Mailbox[int] = Mailbox(1, newest=True)
    ended = on_a_thread(box.get)
    end(box)
    assert ended.wait(SOON_S)


@pytest.mark.parametrize("end", [Mailbox.close, Mailbox.abandon])
def test_ending_wakes_a_waiting_producer(end: Callable[[Mailbox[int]], None]) -> None:
    box: Mailbox[int] = Mailbox(1, newest=False)
    box.put(0)

    def produce() -> None:
        with pytest.raises(ClosedError):
            box.put(1)

    refused = on_a_thread(produce)
    end(box)
    assert refused.wait(SOON_S)


def test_what_is_abandoned_is_lost() -> None:
    box: Mailbox[int] = Mailbox(2, newest=True)
    box.put(0)
    box.abandon()
    assert box.closed
    assert (len(box), box.get()) == (0, None)
    with pytest.raises(ClosedError):
        box.put(1)


def test_a_mailbox_holds_something() -> None:
    with pytest.raises(ValueError, match="one item at least"):
        Mailbox[int](0, newest=True)


def test_large_items_are_bounded_by_their_bytes() -> None:
    box: Mailbox[bytes] = Mailbox(10, newest=True, most_bytes=100, weigh=len)
    for size in (40, 40, 20, 30):
        box.put(b"x" * size)
    assert (len(box), box.dropped) == (3, 1)
    box.put(b"x" * 500)
    assert (len(box), box.dropped) == (1, 4), "one may always wait"
    box.put(b"x" * 60)
    box.put(b"x" * 40)
    assert [len(box.get() or b"") for _ in range(2)] == [60, 40]


def test_put_waits_for_room_in_bytes_where_nothing_may_be_lost() -> None:
    box: Mailbox[bytes] = Mailbox(10, newest=False, most_bytes=100, weigh=len)
    box.put(b"x" * 60)
    second = on_a_thread(lambda: box.put(b"x" * 60))
    assert not second.wait(0.05)
    box.get()
    assert second.wait(SOON_S)
