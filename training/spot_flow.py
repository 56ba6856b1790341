"""Intervals in region flow: peaks of the face's displacement, by thresholds that are chosen on other subjects.

The flow is added up to each region's displacement; less its mean over the last seconds it is a deviation, and the mean of the
two largest regions is the loudness. An interval begins where loudness left its rest before it passed a threshold, and ends
where it has fallen to a share of its peak. Each interval uses the frames up to its end only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from engine.errors import InputError
from engine.types import F64
from training.datasets.long_video import LongVideo
from training.datasets.pictures import ClipFolder
from training.spot_loso import Found, Spotted
from training.spotting import Interval, score

SMOOTH_S = 0.1
LOUDEST = 2
SHORTEST_S = 0.12
ONSET_SHARE = 0.3  # of the peak: an onset lies no lower

MEMORIES_S = (1.5, 3.0)
THRESHOLDS_PX = (2.8, 2.0, 1.4, 1.0, 0.7)
FALLS = (0.3, 0.5, 0.7)
"""What is chosen from, on the subjects that are not judged: F1 over their videos decides, of equal ones the strictest."""


@dataclass(frozen=True)
class Choice:
    """Seconds that the rest is averaged over, threshold of the loudness in pixels, share of the peak where an interval ends."""

    memory_s: float
    threshold_px: float
    fall: float


def spans_of_flow(train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int) -> Found:
    """Intervals in test videos of region flow by the best choice on train; nothing is drawn, so seed has no effect.

    Raises InputError where a video holds pictures instead.
    """
    best = max(_choices(train), key=lambda rated: rated[0])[1]
    return {video.name: list(spans(loudness(video, best.memory_s), video.fps, best)) for video in test}


def _choices(train: Sequence[LongVideo]) -> Iterator[tuple[float, Choice]]:
    truth = [[Interval(each.onset, each.offset + 1) for each in video.truth] for video in train]
    for memory in MEMORIES_S:
        curves = [loudness(video, memory) for video in train]
        for threshold, fall in product(THRESHOLDS_PX, FALLS):
            choice = Choice(memory, threshold, fall)
            found = [list(spans(curve, video.fps, choice)) for curve, video in zip(curves, train, strict=True)]
            yield score(zip(found, truth, strict=True)).f1, choice


def loudness(video: LongVideo, memory_s: float) -> F64:
    """[frames] pixels: how far the loudest regions stand from their mean position over the last memory_s."""
    if isinstance(video.source, ClipFolder):
        raise InputError(f"the video {video.name} holds pictures; region flow is needed")
    position = np.cumsum(video.source, 0, dtype=np.float64)
    away = _lately(position, round(SMOOTH_S * video.fps)) - _lately(position, round(memory_s * video.fps))
    return np.asarray(np.sort(np.hypot(away[..., 0], away[..., 1]), 1)[:, -LOUDEST:].mean(1))


def _lately(values: F64, rows: int) -> F64:
    """Means of values [n, R, 2] over the last so many rows, or as many as there are."""
    sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, 0)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - max(rows, 1), 0)
    return np.asarray((sums[stop] - sums[start]) / (stop - start)[:, None, None])


def spans(curve: F64, fps: float, choice: Choice) -> Iterator[Spotted]:
    """Intervals of a loudness [frames], in order of time."""
    at, free = 0, 0
    while at < len(curve):
        if curve[at] <= choice.threshold_px:
            at += 1
            continue
        end, peak = at, at
        while end + 1 < len(curve) and curve[end + 1] > choice.fall * curve[peak]:
            end += 1
            if curve[end] > curve[peak]:
                peak = end
        start = at
        while start > free and ONSET_SHARE * curve[peak] < curve[start - 1] < curve[start]:
            start -= 1
        if end - start >= SHORTEST_S * fps:
            yield Spotted(start, end + 1)
        at = free = end + 1
