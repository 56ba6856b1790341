from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.live import PATIENCE_S
from tools.soak.latency import measure
from tools.soak.running import LiveProcess

PATTERN = "lavfi:testsrc=size=160x120:rate=25"


def test_it_serves_until_it_is_ended() -> None:
    async def first_types(service: LiveProcess) -> list[str]:
        seen: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            async for message in service.messages("pattern"):
                seen.append(message["type"])
                assert message["received"] > 0
                if {"hello", "signal", "preview"} <= set(seen):
                    return seen
        return seen

    with LiveProcess([PATTERN]) as service:
        assert service.usage.is_running() and service.usage.memory_info().rss > 0
        assert asyncio.run(first_types(service))[0] == "hello"
        assert "pattern: live" in service.log()
        pid = service.usage.pid
        assert service.end() < PATIENCE_S
    assert not psutil.pid_exists(pid)


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="is no file"):
        LiveProcess([str(tmp_path / "none.mp4")])


def test_a_clips_events_are_measured_from_outside(rendered_clip: Path) -> None:
    events, _ = measure(rendered_clip)
    assert {event.state for event in events} == {"provisional", "final"}
    for event in events:
        assert event.latency_ms > 0
        assert event.apex_t - 0.1 < event.decided_t < 8.1, "the frame that decided lies in the clip, after the apex"
