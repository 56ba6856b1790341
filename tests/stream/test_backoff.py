from __future__ import annotations

import pytest

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


def test_jitter_varies_each_wait_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.backoff.random.uniform", lambda low, high: high)
    backoff = Backoff(0.4, 2.0, jitter=0.25)
    assert [backoff.next() for _ in range(4)] == pytest.approx([0.5, 1.0, 2.0, 2.0])
    monkeypatch.setattr("stream.backoff.random.uniform", lambda low, high: low)
    assert backoff.next() == pytest.approx(1.5)
