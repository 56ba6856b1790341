from __future__ import annotations

from stream.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_reset_starts_again_with_the_first() -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5


def test_jitter_shortens_each_wait_by_a_share_of_it_also_at_the_limit() -> None:
    backoff = Backoff(0.5, 2.0, jitter=0.25)
    for wait in (0.5, 1.0):
        assert 0.75 * wait <= backoff.next() <= wait
    waits = [backoff.next() for _ in range(50)]
    assert all(1.5 <= wait <= 2.0 for wait in waits)
    assert len(set(waits)) > 5
