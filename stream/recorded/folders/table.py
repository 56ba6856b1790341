"""The table over all videos in an output folder, one a row: from the summaries, the records and what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.text import csv_line
from stream.files import write_atomically
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.records import RECORD, read_record
from stream.recorded.folders.tasks import TABLE, Task

LABELS = ("negative", "positive", "surprise", "uncertain")
"""Classes whose events have columns; the others are counted together."""
GONE = "the video is gone: it was renamed, moved or deleted after its analysis"
COLUMNS = (
    *("video", "results", "state", "problem", "duration_s", "frames", "fps", "faces", "face_s"),
    *("events", "micro", "macro", *LABELS, "other_labels", "truncated", "while_speaking"),
    *("speech_s", "blinks", "head_turn_s", "covered_s", "model", "notes"),
)


@dataclass(frozen=True)
class Row:
    """A video: results is the folder of its results relative to the output folder.

    state: done; damaged (what could be read of it was analysed); failed; waiting (not analysed to its end); gone
    (analysed, but the video is no longer there; its figures count in no total). problem is the sentence that belongs to
    damaged, failed and gone, figures the further columns, {} where there are no results.
    """

    video: str
    results: str
    state: str
    problem: str = ""
    figures: Mapping[str, Any] | None = None


class Table:
    """All videos of a run, and those whose results were in the output folder before it."""

    def __init__(self, out: Path, tasks: Iterable[Task]) -> None:
        self._out = out
        self._rows = {task.name: Row(str(task.video.resolve()), task.name, "waiting") for task in tasks}
        for record in sorted(out.rglob(RECORD)):
            self._read(record.parent.relative_to(out).as_posix())

    def note(self, outcome: Outcome) -> None:
        """Take what came of a task."""
        task = outcome.task
        failed = outcome.report is None and outcome.problem and not outcome.stopped  # what is there is of an earlier run
        if failed or not self._read(task.name):
            state, problem = ("waiting", "") if outcome.stopped else ("failed", outcome.problem or "")
            self._rows[task.name] = Row(str(task.video.resolve()), task.name, state, problem)

    @property
    def rows(self) -> list[Row]:
        """In the order of the folders of results."""
        return [self._rows[name] for name in sorted(self._rows)]

    def write(self) -> None:
        """Write summary.csv into the output folder. Raises OutputError."""
        lines = [csv_line(COLUMNS), *(csv_line(_cells(row)) for row in self.rows)]
        write_atomically(self._out / TABLE, lines)

    def _read(self, name: str) -> bool:
        """Take finished results; False where there are none."""
        folder = self._out / name
        record = read_record(folder)
        if record is None or not record.finished:
            return False
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            state, problem = "damaged" if record.problem else "done", record.problem or ""
            if not Path(summary["file"]).exists():
                state, problem = "gone", GONE
            row = Row(summary["file"], name, state, problem, figures(summary))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        self._rows[name] = row
        return True


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that come from a summary.json. Raises KeyError or TypeError where it is none."""
    video, events, activities, counts = (summary[name] for name in ("video", "events", "activities", "statistics"))
    labels, kinds = events["by_label"], events["by_kind"]
    shown = counts.get("frames_with_face", 0) / max(1, video["frames"])
    return {
        "duration_s": round(video["duration"] or 0.0, 3),
        "frames": video["frames"],
        "fps": video["measured_fps"],
        "faces": counts.get("faces", 0),
        "face_s": round(shown * min(video["covered"] or 0.0, video["duration"] or 0.0), 1),
        "events": events["count"],
        "micro": kinds.get("micro", 0),
        "macro": kinds.get("macro", 0),
        **{label: labels.get(label, 0) for label in LABELS},
        "other_labels": sum(count for label, count in labels.items() if label not in LABELS),
        "truncated": events["truncated"],
        "while_speaking": events["speaking"],
        "speech_s": activities["speech"]["seconds"],
        "blinks": activities["blink"]["count"],
        "head_turn_s": activities["head_turn"]["seconds"],
        "covered_s": activities["covered"]["seconds"],
        "model": summary["model"],
        "notes": "; ".join([*video["warnings"], *summary["notes"]]),
    }


def _cells(row: Row) -> list[Any]:
    fixed = {"video": row.video, "results": row.results, "state": row.state, "problem": row.problem}
    values = {**fixed, **(row.figures or {})}
    return ["" if values.get(name) is None else values.get(name) for name in COLUMNS]
