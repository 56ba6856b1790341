"""Intervals in region flow by the judge of live analysis (`engine.spotting.judge`), fitted here to other people.

The network is fitted first to whole other databases, if their files are in the folder, then to the other subjects of this one.
Its answers become intervals by the rules of live analysis (`engine.spotting.detections`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.spotting.detections import Detection, Thresholds, detect
from engine.spotting.features import HZ
from training.datasets.long_tables import LONG_DATABASES
from training.datasets.long_video import LongVideo, load_flow
from training.judge import JudgeNet, answers_to, fit
from training.spot_loso import Found, Progress, Spot, Spotted
from training.tapes import rows_of, tape_of_flow
from training.windows import FlowWindows, MixedWindows

THRESHOLDS = Thresholds(high=0.75, low=0.55, micro_high=0.6, micro_low=0.3)
"""One set for both databases, chosen on half the subjects of each (training/LEDGER.md)."""

NETWORKS = 2
"""Networks whose answers are averaged."""

STEPS = 400
STEPS_BASE = 400
STEPS_TUNED, RATE_TUNED, OWN = 400, 3e-3, 0.85
"""Steps of a fit to this database alone; to the others; and from there on, at this rate, to all, with this share of windows
from this database."""


@dataclass(frozen=True, eq=False)
class Start:
    """Start of the fits to a database: networks fitted to videos of others."""

    networks: tuple[JudgeNet, ...]
    videos: Sequence[LongVideo]


def other_videos(database: str, folder: Path) -> list[LongVideo]:
    """Region flow of the other databases in a folder. Raises InputError where it cannot be read."""
    others = (one for one in LONG_DATABASES.values() if one.name != database and (folder / f"{one.name}.npz").is_file())
    return [video for one in others for video in load_flow(one, folder).videos]


def spotter(others: Sequence[LongVideo], seed: int, progress: Progress = lambda what, done, total: None) -> Spot:
    """A spotter of region flow, fitted to the videos of others first, if there are any. Raises InputError where one holds
    pictures."""
    if not others:
        return partial(spans_of_flow, steps=STEPS)
    draw, total, networks = FlowWindows([tape_of_flow(video) for video in others]), NETWORKS * STEPS_BASE, []
    for k in range(NETWORKS):

        def report(step: int, loss: float, before: int = k * STEPS_BASE) -> None:
            progress("steps on other databases", before + step, total)

        networks.append(fit(draw, STEPS_BASE, _seed(seed, k), progress=report))
    return partial(spans_of_flow, steps=STEPS_TUNED, start=Start(tuple(networks), others))


def spans_of_flow(
    train: Sequence[LongVideo], test: Sequence[LongVideo], seed: int, steps: int = STEPS, start: Start | None = None
) -> Found:
    """Intervals in test videos of region flow by networks fitted to train for so many steps, from start on where
    one is given. Raises InputError where a video holds pictures instead.
    """
    own = FlowWindows([tape_of_flow(video) for video in train])
    if start is None:
        networks = [fit(own, steps, _seed(seed, k)) for k in range(NETWORKS)]
    else:
        draw = MixedWindows([(own, OWN), (FlowWindows([tape_of_flow(video) for video in start.videos]), 1 - OWN)])
        networks = [fit(draw, steps, _seed(seed, k), net, RATE_TUNED) for k, net in enumerate(start.networks)]
    return {video.name: intervals(networks, video) for video in test}


def _seed(seed: int, network: int) -> int:
    return NETWORKS * seed + network


def intervals(networks: Sequence[JudgeNet], video: LongVideo) -> list[Spotted]:
    """The intervals of a video of region flow by the mean answer of fitted networks. Raises InputError where it holds
    pictures."""
    tape = tape_of_flow(video)
    rows = rows_of(tape.displacement, tape.mesh)
    answers = np.mean([answers_to(net, rows) for net in networks], axis=0)
    return [spotted(one, video.fps) for one in detect(answers, THRESHOLDS)]


def spotted(found: Detection, fps: float) -> Spotted:
    """A detection, whose last row counts, in frames of a video at fps."""
    start = round(found.start * fps)
    return Spotted(start, max(round((found.end + 1 / HZ) * fps), start + 1), probability=found.answer)
