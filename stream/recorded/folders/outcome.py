"""What came of analysing one video into a folder."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import ApexError
from stream.recorded.folders.records import read_record
from stream.recorded.results import read_results

if TYPE_CHECKING:
    from stream.recorded.analyze import Report
    from stream.recorded.folders.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """What came of a task. problem is a sentence where not all of the video was analysed.

    stopped: on request. disk_full: there is no room for results. defect: the problem is an error of the program. trace is the
    traceback of an error.
    """

    task: Task
    report: Report | None
    problem: str | None
    stopped: bool = False
    disk_full: bool = False
    defect: bool = False
    trace: str = ""


def failed(task: Task, error: Exception) -> Outcome:
    """What came of a task that an error ended; within its handling."""
    trace = traceback.format_exc()
    if isinstance(error, ApexError):
        return Outcome(task, None, str(error), disk_full=_disk_is_full(error), trace=trace)
    return Outcome(task, None, f"unexpected error ({type(error).__name__}: {error})", defect=True, trace=trace)


def earlier_outcome(task: Task) -> Outcome | None:
    """What came of a task when its finished results were made; None where there are none."""
    from stream.recorded.analyze import Report

    record = read_record(task.folder)
    if record is None or not record.finished:
        return None
    try:
        found = read_results(task.folder)
    except ApexError:
        return None
    events = tuple(entry.event for entry in found.entries)
    report = Report(task.video, task.folder, events, dict(found.summary), dict(record.timing or {}), record.problem)
    return Outcome(task, report, record.problem)


def _disk_is_full(error: ApexError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
