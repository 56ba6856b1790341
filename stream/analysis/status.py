"""The status of a source as people see it: its connection's, unless its analysis or its worker process has a fault."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from stream.messages import SourceState, SourceStatus

FaultKind = Literal["analysis failed", "analysis hangs", "process silent", "process exited"]


@dataclass(frozen=True)
class Fault:
    """Why the frames of a source are not analysed; detail is one sentence for people, at is seconds of the Unix epoch."""

    kind: FaultKind
    detail: str
    at: float


def visible_status(reported: SourceStatus, fault: Fault | None = None, *, previous: SourceStatus | None = None) -> SourceStatus:
    """The status of a source that its connection reports as reported.

    A fault replaces the state and the detail; a source that has ended stays so, and a worker process is not missed then. Where
    the process was restarted, previous is the visible status when the last one exited: its counts are added, and starting again
    is shown as part of the reconnecting.
    """
    status = reported
    if previous is not None:
        if status.state == "starting":
            status = replace(status, state="reconnecting", detail=previous.detail)
        status = replace(
            status,
            frames=previous.frames + status.frames,
            drops=previous.drops + status.drops,
            reconnects=previous.reconnects + status.reconnects + (status.frames > 0),
        )
    if fault is None:
        return status
    in_process = fault.kind in ("analysis failed", "analysis hangs")
    if status.state == "ended":
        return replace(status, detail=fault.detail) if in_process else status
    state: SourceState = "stalled" if fault.kind in ("analysis hangs", "process silent") else "reconnecting"
    status = replace(status, state=state, detail=fault.detail)
    return status if in_process else replace(status, fps=0.0, since=fault.at)
