"""Leave-one-subject-out spotting: the intervals of a subject's videos come from a spotter fitted to other subjects only.

A spotter is a callable (train, test, seed) -> intervals by the names of the test videos. It runs once per subject, so that all
its choices, thresholds too, come from the others. `live` is the pipeline as shipped, which fits nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2

from engine.config import PipelineSettings
from engine.errors import InputError
from engine.intervals import Interval
from engine.pipeline import Pipeline
from engine.recognition.recognizer import Recognizer
from engine.types import MICRO_LIMIT_S, Event, Frame, Kind
from training.datasets.long_video import LongVideo
from training.datasets.pictures import ClipFolder, read_picture
from training.pool import each, processes
from training.split import Fold, check_apart, leave_one_subject_out


@dataclass(frozen=True)
class Spotted(Interval):
    """A found interval in frames, end excluded, with its class if any, and its probability, 0 to 1."""

    probability: float | None = None


Found = Mapping[str, Sequence[Spotted]]
"""Intervals by the video's name."""

Spot = Callable[[Sequence[LongVideo], Sequence[LongVideo], int], Found]
"""(train, test, seed) -> intervals in the test videos; it must be picklable to run in another process."""

Progress = Callable[[str, int, int], None]
"""Called with the last item done, the number done and the total."""


def kind_of(interval: Interval, fps: float) -> Kind:
    """micro where the last frame comes at most half a second after the first, else macro: what a prediction counts as."""
    return "micro" if (interval.end - 1 - interval.start) / fps <= MICRO_LIMIT_S + 1e-6 else "macro"


def spot_unseen(
    videos: Sequence[LongVideo],
    spot: Spot,
    *,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, tuple[Spotted, ...]]:
    """Intervals of every video, in order of time, found by a spotter that saw other subjects only.

    jobs subjects run at once, each in a process with one thread; the result does not depend on jobs. Raises InputError with
    fewer than two subjects or where spot leaves out a video, ApexError where a process dies.
    """
    folds = leave_one_subject_out([video.subject for video in videos])
    check_apart(folds, [video.subject for video in videos], [video.database for video in videos])
    found: dict[str, tuple[Spotted, ...]] = {}
    progress("subjects", 0, len(folds))
    with processes(jobs, len(folds), _one_thread) as pool:
        work = [partial(_spot_subject, spot, *_sides(videos, fold), seed, fold.name) for fold in folds]
        for done, (subject, part) in enumerate(each(pool, work), start=1):
            found |= part
            progress(subject, done, len(folds))
    return {video.name: found[video.name] for video in videos}


def _sides(videos: Sequence[LongVideo], fold: Fold) -> tuple[list[LongVideo], list[LongVideo]]:
    return [videos[i] for i in fold.train], [videos[i] for i in fold.test]


def _spot_subject(
    spot: Spot, train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int, subject: str
) -> tuple[str, dict[str, tuple[Spotted, ...]]]:
    found = spot(train, test, seed)
    missing = [video.name for video in test if video.name not in found]
    if missing:
        raise InputError(f"the spotter returned no list for {', '.join(missing)}; one without intervals must be empty")
    return subject, {video.name: tuple(sorted(found[video.name], key=lambda one: (one.start, one.end))) for video in test}


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)


def live(train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int) -> Found:
    """Intervals by the live pipeline with its default settings in videos of pictures; train and seed have no effect. Raises
    InputError where a picture cannot be read."""
    settings = PipelineSettings()
    recognizer = Recognizer(settings.recognizer)
    return {video.name: [_spotted(event) for event in _events(video, settings, recognizer)] for video in test}


def _events(video: LongVideo, settings: PipelineSettings, recognizer: Recognizer) -> Iterator[Event]:
    """The final events of a video."""
    pipeline = Pipeline(settings, stream=video.name, recognizer=recognizer)
    try:
        for frame in _frames(video):
            yield from (event for event in pipeline.feed(frame) if event.state == "final")
        yield from pipeline.flush()
    finally:
        pipeline.close()


def _frames(video: LongVideo) -> Iterator[Frame]:
    """The video's pictures as frames; missing numbers are gaps."""
    if not isinstance(video.source, ClipFolder):
        raise InputError(f"the video {video.name} is region flow; the live pipeline needs pictures")
    before = None
    for number, path in video.source.numbered().items():
        yield Frame(number, number / video.fps, read_picture(path), gap=before not in (None, number - 1))
        before = number


def _spotted(event: Event) -> Spotted:
    assert event.offset is not None, "a final event has an offset"
    return Spotted(event.onset.frame, event.offset.frame + 1, event.label)
