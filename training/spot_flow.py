"""Intervals in region flow by the judge of live analysis (`engine.judge`), fitted here to other people.

The network is fitted first to a whole other database, where one lies beside the one that is judged, then to the subjects of
this one that are not judged. Its answers become intervals by the rules of live analysis, half a second behind the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engine.judge import Stretch, Thresholds, stretches_of
from engine.signals import HZ
from training.datasets.long_tables import LONG_DATABASES
from training.datasets.long_video import LongVideo, load_flow
from training.judge import RATE, JudgeNet, answers_to, fit
from training.spot_loso import Found, Progress, Spot, Spotted
from training.tapes import LongVideos, of_flow, rows_of

THRESHOLDS = Thresholds(high=0.8, low=0.6, micro_high=0.6, micro_low=0.4)
"""One set for both databases, chosen on half the subjects of each (training/LEDGER.md)."""

STEPS = 400
STEPS_BASE = 400
STEPS_TUNED, RATE_TUNED = 200, 3e-3
"""Steps of a fit to one database alone; to the other one, and from there on to the judged one."""


def other_videos(database: str, folder: Path) -> list[LongVideo]:
    """Region flow of the other databases that lies in a folder. Raises InputError where it cannot be read."""
    others = (one for one in LONG_DATABASES.values() if one.name != database and (folder / f"{one.name}.npz").is_file())
    return [video for one in others for video in load_flow(one, folder).videos]


def spotter(others: Sequence[LongVideo], seed: int, progress: Progress = lambda what, done, total: None) -> Spot:
    """What spots videos of region flow, fitted to all others first, if there are any. Raises InputError where one holds
    pictures."""
    if not others:
        return partial(spans_of_flow, steps=STEPS)
    draw = LongVideos([of_flow(video) for video in others])
    base = fit(draw, STEPS_BASE, seed, progress=lambda step, loss: progress("steps to begin with", step, STEPS_BASE))
    return partial(spans_of_flow, steps=STEPS_TUNED, base=base)


def spans_of_flow(
    train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int, steps: int = STEPS, base: JudgeNet | None = None
) -> Found:
    """Intervals in test videos of region flow by a network fitted to train for so many steps, from base on where one is given.

    Raises InputError where a video holds pictures instead.
    """
    draw = LongVideos([of_flow(video) for video in train])
    net = fit(draw, steps, seed, net=base, rate=RATE if base is None else RATE_TUNED)
    return {video.name: intervals(net, video) for video in test}


def intervals(net: JudgeNet, video: LongVideo) -> list[Spotted]:
    """The intervals of a video of region flow that a fitted network finds. Raises InputError where it holds pictures."""
    tape = of_flow(video)
    answers = answers_to(net, rows_of(tape.displacement, tape.mesh))
    return [spotted(stretch, video.fps) for stretch in stretches_of(answers, THRESHOLDS)]


def spotted(stretch: Stretch, fps: float) -> Spotted:
    """A stretch, whose last row counts, in frames of a video."""
    start = round(stretch.start * fps)
    return Spotted(start, max(round((stretch.end + 1 / HZ) * fps), start + 1), probability=stretch.probability)
