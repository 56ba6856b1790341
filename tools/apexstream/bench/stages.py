"""Each stage of the way from frame to event, timed beside the call that one would write instead.

Both sides see the same pictures, in turns, on one thread. A figure is milliseconds of the processor, so that other programs on
the machine change little: per frame, or per call where the stage runs once an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from apexstream.bench.baseline import default_flow, plain_map
from apexstream.bench.timing import fastest_of_each, medians_of_each, timed
from engine.config import RecognizerSettings
from engine.faces.landmarks import FaceLocator
from engine.geometry import keypoints, keypoints_to_map
from engine.kernels import machine_code
from engine.mesh import bundle
from engine.mesh.tasks import VideoMesh
from engine.ops.tvl1 import tvl1
from engine.recognition.flowmap import network_input, whole_map
from engine.registration.align import Registrar
from engine.runtime import load
from engine.spotting.spotter import Spotter
from engine.types import F32, U8, Crop, Face, Frame
from engine.weights import load_card, weights_for
from stream.sources.file import open_video

CALLS = 30
"""Of a stage that runs once an expression."""


@dataclass(frozen=True)
class Stage:
    """A stage's time on one thread, ms; plain_ms that of what one would write instead, None where nothing else does it."""

    name: str
    per: str
    ms: float
    plain_ms: float | None
    plain: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as fast."""
        return None if self.plain_ms is None else self.plain_ms / self.ms


def measure(video: Path, frames: int) -> Iterator[Stage]:
    """Stage after stage, over the first frames of a video that shows a face."""
    with single_threaded():
        decoded = _decoded(video, frames)
        yield _decoding(video, len(decoded))
        stage, found = _landmarks(decoded)
        yield stage
        registration, spotting, crops = _following(decoded, found)
        yield from (registration, spotting)
        flow, points, stage = _flow(crops)
        yield stage
        yield _features(flow, points)
        yield _network(flow, points)


@contextmanager
def single_threaded() -> Iterator[None]:
    """OpenCV and, where it is installed, PyTorch on one thread."""
    import torch

    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def _decoded(video: Path, frames: int) -> list[Frame]:
    with open_video(video, threads=1) as source:
        return list(islice(source, frames))


def _decoding(video: Path, frames: int) -> Stage:
    def plain() -> None:
        reader = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        for _ in range(frames):
            there, picture = reader.read()
            if there:
                cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        reader.release()

    best, other = fastest_of_each(lambda: _decoded(video, frames), plain, 3)
    return Stage("decoding", "frame", 1000 * best / frames, 1000 * other / frames, "cv2.VideoCapture, to RGB")


def _landmarks(frames: list[Frame]) -> tuple[Stage, list[list[Face]]]:
    locator, mesh = FaceLocator(), VideoMesh(bundle.read())
    pictures = [(frame.rgb, frame.t) for frame in frames[::4]]
    found: list[list[Face]] = []
    locator.locate(frames[0])
    mesh.find(*pictures[0])
    ours = timed(lambda: found.extend(locator.locate(frame) for frame in frames))[0] / len(frames)
    plain = timed(lambda: [mesh.find(*picture) for picture in pictures[1:]])[0] / (len(pictures) - 1)
    locator.close()
    mesh.close()
    return Stage("landmarks", "frame", 1000 * ours, 1000 * plain, "MediaPipe FaceLandmarker, whole picture"), found


def _following(frames: list[Frame], found: list[list[Face]]) -> tuple[Stage, Stage, list[Crop]]:
    machine_code()  # loaded before it is measured
    registrar, spotter = Registrar(), Spotter()
    crops: list[Crop] = []

    def register() -> None:
        for frame, faces in zip(frames, found, strict=True):
            crop = registrar.register(frame, faces[0]) if faces else None
            if crop is not None:
                crops.append(crop)

    registering = 1000 * timed(register)[0] / len(frames)
    spotting = 1000 * timed(lambda: [spotter.observe(crop) for crop in crops])[0] / len(frames)
    return Stage("registration", "frame", registering, None), Stage("spotting", "frame", spotting, None), crops


def _flow(crops: Sequence[Crop]) -> tuple[F32, F32, Stage]:
    pairs = _pairs(crops)
    tvl1(*pairs[0], backend="cpu")
    times = [fastest_of_each(*_both(before, after), 1) for before, after in pairs]
    ours, plain = (1000 * median(side) for side in zip(*times, strict=True))
    flow = tvl1(*pairs[-1], backend="cpu")
    return flow, keypoints(crops[-1].landmarks), Stage("flow (TV-L1)", "expression", ours, plain, "cv2 DualTVL1, as it comes")


def _both(before: U8, after: U8) -> tuple[Callable[[], object], Callable[[], object]]:
    floats = np.asarray(before, np.float32), np.asarray(after, np.float32)
    return lambda: tvl1(before, after, backend="cpu"), lambda: default_flow(*floats)


def _pairs(crops: Sequence[Crop]) -> list[tuple[U8, U8]]:
    """Crops a fifth of a second or so apart, some of them in the middle of expressions."""
    step = max(1, len(crops) // (CALLS // 3))
    return [(crops[k].pixels, crops[min(k + 6, len(crops) - 1)].pixels) for k in range(0, len(crops), step)]


def _features(flow: F32, points: F32) -> Stage:
    cells = keypoints_to_map(points)
    ours, plain = medians_of_each(
        lambda: network_input("five-regions", whole_map(flow), cells),
        lambda: network_input("five-regions", plain_map(flow), cells),
        CALLS,
    )
    return Stage("strain and features", "expression", 1000 * ours, 1000 * plain, "numpy gradients")


def _network(flow: F32, points: F32) -> Stage:
    weights = weights_for(RecognizerSettings().network)
    card = load_card(weights)
    given = network_input(card.input, whole_map(flow), keypoints_to_map(points))[None]
    fast, eager = load(weights, backend="ort"), load(weights, backend="eager")
    ours, plain = medians_of_each(lambda: fast(given), lambda: eager(given), CALLS)
    return Stage("network", "expression", 1000 * ours, 1000 * plain, "PyTorch eager")
