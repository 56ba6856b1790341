"""Scores of spotted intervals as in the Micro-Expression Grand Challenges: F1 by kind and overall, spread, STRS; the record.

A prediction is micro or macro by its own duration (`training.spot_loso.kind_of`), a truth by its table. Micro and macro match
predictions of that kind with truths of that kind; "micro + macro" sums the two, as published overall figures do; overall
matches all predictions with all truths, whatever their kinds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import OutputError
from engine.intervals import IOU, Interval
from engine.types import Kind
from training.datasets.long_tables import Annotation
from training.datasets.long_video import LongVideo, LongVideos
from training.provenance import made_here
from training.spot_loso import Found, Spotted, kind_of
from training.spotting import Score, score

ROWS = ("micro", "macro", "micro + macro", "overall")


@dataclass(frozen=True)
class RowScore:
    """Pooled counts of all videos, and F1 of each subject that has a truth or a prediction of this kind."""

    pooled: Score
    subjects: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean over the subjects, 0 where there are none."""
        return float(np.mean(list(self.subjects.values()))) if self.subjects else 0.0

    @property
    def spread(self) -> float:
        """Standard deviation (n - 1) over the subjects, not a number with fewer than two."""
        return float(np.std(list(self.subjects.values()), ddof=1)) if len(self.subjects) > 1 else math.nan


def score_rows(videos: Sequence[LongVideo], found: Found) -> dict[str, RowScore]:
    """The rows of `ROWS`; intervals and truths are compared in the frames of each video."""
    return {row: _scored(videos, found, count) for row, count in _COUNTS.items()}


def _scored(videos: Sequence[LongVideo], found: Found, count: Callable[[Sequence[LongVideo], Found], Score]) -> RowScore:
    subjects = {}
    for subject in dict.fromkeys(video.subject for video in videos):
        part = count([video for video in videos if video.subject == subject], found)
        if part.tp + part.fp + part.fn:
            subjects[subject] = part.f1
    return RowScore(count(videos, found), subjects)


def _of_kind(kind: Kind, videos: Sequence[LongVideo], found: Found) -> Score:
    return score(
        (
            [one for one in found[video.name] if kind_of(one, video.fps) == kind],
            [_interval(truth) for truth in video.truth if truth.kind == kind],
        )
        for video in videos
    )


def _micro(videos: Sequence[LongVideo], found: Found) -> Score:
    return _of_kind("micro", videos, found)


def _macro(videos: Sequence[LongVideo], found: Found) -> Score:
    return _of_kind("macro", videos, found)


def _summed(videos: Sequence[LongVideo], found: Found) -> Score:
    a, b = _micro(videos, found), _macro(videos, found)
    pairs = {pair: a.confusion.get(pair, 0) + b.confusion.get(pair, 0) for pair in a.confusion | b.confusion}
    return Score(a.tp + b.tp, a.fp + b.fp, a.fn + b.fn, pairs)


def _overall(videos: Sequence[LongVideo], found: Found) -> Score:
    return score((found[video.name], [_interval(truth) for truth in video.truth]) for video in videos)


_COUNTS: dict[str, Callable[[Sequence[LongVideo], Found], Score]] = dict(
    zip(ROWS, (_micro, _macro, _summed, _overall), strict=True)
)


def _interval(truth: Annotation) -> Interval:
    return Interval(truth.onset, truth.offset + 1, truth.label)


def strs_missing(data: LongVideos, rows: Mapping[str, RowScore]) -> str | None:
    """Why there is no spot-then-recognize score, or None where there is one."""
    if not data.has_pictures:
        return "STRS needs pictures: region flow cannot be recognized"
    if not any(truth.label for video in data.videos for truth in video.truth):
        return "STRS needs emotions, which neither this table nor one near it names"
    if not rows["overall"].pooled.confusion:
        return "STRS: no expression of the three classes was spotted"
    return None


def record(data: LongVideos, found: Found, rows: Mapping[str, RowScore], *, command: str, seed: int) -> dict[str, Any]:
    """All intervals and scores, ready for JSON."""
    missing = strs_missing(data, rows)
    overall = rows["overall"].pooled
    return {
        "command": command,
        "database": data.database.name,
        "input": "pictures" if data.has_pictures else "region flow",
        "seed": seed,
        "iou": IOU,
        "made_by": made_here(),
        "subjects": len({video.subject for video in data.videos}),
        "absent": list(data.absent),
        "left_out": len(data.left_out),
        "scores": {name: _row(row) for name, row in rows.items()},
        "strs": None
        if missing
        else {"strs": overall.strs, "recognition_f1": overall.recognition_f1, "uncertain": overall.abstained},
        "strs_missing": missing,
        "videos": {video.name: _video(video, found[video.name]) for video in data.videos},
    }


def _row(row: RowScore) -> dict[str, Any]:
    pooled = row.pooled
    return {
        **{"tp": pooled.tp, "fp": pooled.fp, "fn": pooled.fn},
        **{"precision": pooled.precision, "recall": pooled.recall, "f1": pooled.f1},
        "subject_f1": {"mean": row.mean, "spread": None if math.isnan(row.spread) else row.spread},
    }


def _video(video: LongVideo, found: Sequence[Spotted]) -> dict[str, Any]:
    """Frames, offsets included."""
    return {
        "subject": video.subject,
        "fps": video.fps,
        "predicted": [
            {
                **{"onset": int(one.start), "offset": int(one.end) - 1, "kind": kind_of(one, video.fps)},
                **{"label": one.label, "probability": one.probability},
            }
            for one in found
        ],
        "truth": [
            {"onset": one.onset, "apex": one.apex, "offset": one.offset, "kind": one.kind, "label": one.label}
            for one in video.truth
        ],
    }


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record as JSON. Raises OutputError where that is impossible."""
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as cause:
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause
