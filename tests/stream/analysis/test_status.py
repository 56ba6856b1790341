from __future__ import annotations

import pytest

from stream.analysis.status import Fault, FaultKind, visible_status
from stream.messages import SourceState, SourceStatus


def reported(state: SourceState, detail: str = "its own", frames: int = 10) -> SourceStatus:
    return SourceStatus("a", "rtsp", state, detail, fps=25.0, frames=frames, drops=2, reconnects=1, since=100.0)


@pytest.mark.parametrize(
    ("connection", "fault", "state", "detail"),
    [
        ("starting", None, "starting", "its own"),
        ("live", None, "live", "its own"),
        ("stalled", None, "stalled", "its own"),
        ("reconnecting", None, "reconnecting", "its own"),
        ("ended", None, "ended", "its own"),
        ("starting", "analysis failed", "reconnecting", "the fault"),
        ("live", "analysis failed", "reconnecting", "the fault"),
        ("stalled", "analysis failed", "reconnecting", "the fault"),
        ("ended", "analysis failed", "ended", "the fault"),
        ("live", "analysis hangs", "stalled", "the fault"),
        ("reconnecting", "analysis hangs", "stalled", "the fault"),
        ("ended", "analysis hangs", "ended", "the fault"),
        ("starting", "process silent", "stalled", "the fault"),
        ("live", "process silent", "stalled", "the fault"),
        ("ended", "process silent", "ended", "its own"),
        ("starting", "process exited", "reconnecting", "the fault"),
        ("live", "process exited", "reconnecting", "the fault"),
        ("stalled", "process exited", "reconnecting", "the fault"),
        ("ended", "process exited", "ended", "its own"),
    ],
)
def test_a_fault_replaces_the_state_unless_the_source_has_ended(
    connection: SourceState, fault: FaultKind | None, state: SourceState, detail: str
) -> None:
    status = visible_status(reported(connection), None if fault is None else Fault(fault, "the fault", 200.0))
    assert (status.state, status.detail) == (state, detail)
    assert (status.frames, status.drops, status.reconnects) == (10, 2, 1), "counts are the connection's"


@pytest.mark.parametrize(
    ("fault", "fps", "since"),
    [
        ("analysis failed", 25.0, 100.0),
        ("analysis hangs", 25.0, 100.0),
        ("process silent", 0.0, 200.0),
        ("process exited", 0.0, 200.0),
    ],
)
def test_frames_arrive_while_only_the_analysis_has_a_fault(fault: FaultKind, fps: float, since: float) -> None:
    status = visible_status(reported("live"), Fault(fault, "the fault", 200.0))
    assert (status.fps, status.since) == (fps, since)


@pytest.mark.parametrize(
    ("connection", "frames", "state", "detail", "reconnects"),
    [
        ("starting", 0, "reconnecting", "exit code 1", 2),
        ("live", 5, "live", "its own", 3),
        ("reconnecting", 0, "reconnecting", "its own", 2),
        ("ended", 5, "ended", "its own", 3),
    ],
)
def test_a_restarted_process_continues_the_counts(
    connection: SourceState, frames: int, state: SourceState, detail: str, reconnects: int
) -> None:
    previous = reported("reconnecting", "exit code 1", frames=30)
    status = visible_status(reported(connection, frames=frames), previous=previous)
    assert (status.state, status.detail) == (state, detail)
    assert (status.frames, status.drops, status.reconnects) == (30 + frames, 4, reconnects)
