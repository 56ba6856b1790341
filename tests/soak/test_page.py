from __future__ import annotations

from tests.soak.page import measure, violations


def test_a_real_page_shows_what_is_posted() -> None:
    found = measure(bursts=1, burst=5, sources=2, seconds=0.5)
    assert found["ms_per_event"] > 0
    assert found["clock_ms_per_event"] > 0
    assert found["cores_with_traces"] >= 0


def test_a_slow_page_is_reported() -> None:
    slow = {"ms_per_event": 60.0, "cores_with_traces": 0.9}
    assert violations(slow) == [
        "an event takes the page 60.0 ms, more than 50",
        "with motion traces the page takes 0.9 cores",
    ]
    assert violations({"ms_per_event": 3.0, "cores_with_traces": 0.4}) == []
