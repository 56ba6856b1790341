"""The baseline script: what one would write with the usual libraries, to be measured against.

Each picture goes through cv2.VideoCapture and MediaPipe's FaceLandmarker as they come, each expression through OpenCV's default
TV-L1, numpy and PyTorch, one after the other on one thread. No library finds expressions, so registration and spotting are this
project's own, as OpenCV and numpy do them: its events are those of `apexstream analyze`, and what differs is the way there.

    python -m apexstream.bench.baseline VIDEO          # --mesh-alone: decoding and the mesh of every picture, nothing else
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import cv2
import numpy as np
import typer

from apexstream.native_output import native_output_hidden
from engine.config import RecognizerSettings
from engine.errors import SourceError
from engine.geometry import MAP_SIDE, keypoints, keypoints_to_map
from engine.mesh import bundle
from engine.mesh.tasks import VideoMesh
from engine.pipeline import APEX_REACH_S, ONSET_REACH_S
from engine.recognition.flowmap import network_input
from engine.recognition.likeness import ALIKE, explained
from engine.recognition.residual import take_out_head
from engine.registration.align import Registrar
from engine.ring import Ring
from engine.runtime import load
from engine.spotting.spotter import Spotter
from engine.types import F32, U8, Crop, Face, Frame, Span
from engine.weights import load_card, weights_for


@dataclass(frozen=True)
class FoundEvent:
    """A final event: seconds of the source, and the class."""

    onset: float
    apex: float
    offset: float
    label: str


def pictures(path: Path) -> Iterator[tuple[float, U8]]:
    """Times in seconds and pictures (BGR) of a video. Raises SourceError where OpenCV cannot open it."""
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise SourceError(f"{path} cannot be opened by OpenCV")
    try:
        while True:
            there, picture = video.read()
            if not there:
                return
            yield video.get(cv2.CAP_PROP_POS_MSEC) / 1000, np.asarray(picture, np.uint8)
    finally:
        video.release()


def default_flow(before: F32 | U8, after: F32 | U8) -> F32:
    """OpenCV's TV-L1 with its default parameters: flow [2, H, W] of (u, v) in pixels from grey pictures [H, W] in 0..255."""
    solver: Any = cast(Any, cv2.optflow).DualTVL1OpticalFlow_create()
    grey = [np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in (before, after)]
    return np.ascontiguousarray(solver.calc(grey[0], grey[1], None).transpose(2, 0, 1), np.float32)


def plain_map(flow: F32) -> F32:
    """(u, v, strain) on 28 x 28 cells, each channel scaled to 0..1, [3, 28, 28]."""
    (u_y, u_x), (v_y, v_x) = np.gradient(flow[0]), np.gradient(flow[1])
    strain = np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
    cells = [cv2.resize(channel, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA) for channel in (*flow, strain)]
    return np.asarray(np.stack([(c - c.min()) / max(float(c.max() - c.min()), 1e-9) for c in cells]), np.float32)


@dataclass
class BaselineScript:
    """The script: `see` takes the pictures of a video in order, `finish` ends what is open; `events` are the final ones."""

    events: list[FoundEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = RecognizerSettings()
        weights = weights_for(settings.network)
        self._card, self._network = load_card(weights), load(weights, backend="eager")
        self._mesh = VideoMesh(bundle.read())
        self._registrar, self._spotter = Registrar(), Spotter()
        self._ring: Ring[Crop] = Ring(12.0)
        self._known: tuple[Span, str] | None = None
        self._seen = 0

    def see(self, t: float, bgr: U8) -> None:
        """One picture (BGR) of the time t."""
        points = self._mesh.find(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), t)
        index = self._seen
        self._seen += 1
        if points is None:
            return
        frame = Frame(index, t, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8), "grey")
        crop = self._registrar.register(frame, Face(0, points, t))
        if crop is not None:
            self._ring.append(t, crop)
            self._name(self._spotter.observe(crop))

    def finish(self) -> list[FoundEvent]:
        """The video has ended; all events."""
        self._name(self._spotter.finish())
        self._mesh.close()
        return self.events

    def _name(self, spans: list[Span]) -> None:
        for span in spans:
            known = self._known
            if known is None or (known[0].onset, known[0].apex) != (span.onset, span.apex):
                self._known = known = (span, self._label(span))
            if span.offset is not None and span.state == "final":
                self.events.append(FoundEvent(span.onset.t, span.apex.t, span.offset.t, known[1]))

    def _label(self, span: Span) -> str:
        onset = self._ring.between(span.onset.t - ONSET_REACH_S, span.onset.t) or [next(iter(self._ring))]
        apex = self._ring.between(span.apex.t - APEX_REACH_S, span.apex.t + APEX_REACH_S) or [onset[-1]]
        before, after = (np.asarray(np.mean([c.pixels for c in crops], axis=0), np.float32) for crops in (onset, apex))
        landmarks = np.asarray(np.mean([crop.landmarks for crop in apex], axis=0), np.float32)
        flow = default_flow(before, after)
        if explained(before, after, flow) < ALIKE or onset[-1].anchor != apex[0].anchor:
            return "uncertain"
        whole = plain_map(take_out_head(flow, landmarks))
        given = network_input(self._card.input, whole, keypoints_to_map(keypoints(landmarks)))
        answer = self._network(given[None])[0]
        return self._card.label({name: float(p) for name, p in zip(self._card.classes, answer, strict=True)}, None)[0]


def analyse(path: Path) -> dict[str, Any]:
    """The events of a video, its frames, and the seconds of wall clock and processor that it took, loading included."""
    began, worked = time.perf_counter(), time.process_time()
    script = BaselineScript()
    return _figures(path, script.see, script.finish, began, worked)


def find_meshes(path: Path) -> dict[str, Any]:
    """What `analyse` gives, of nothing but decoding and MediaPipe's mesh of every picture; PyTorch is not loaded for it."""
    began, worked = time.perf_counter(), time.process_time()
    mesh = VideoMesh(bundle.read())

    def see(t: float, bgr: U8) -> None:
        mesh.find(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), t)

    return _figures(path, see, mesh.close, began, worked)


def _figures(
    path: Path, see: Callable[[float, U8], None], finish: Callable[[], list[FoundEvent] | None], began: float, worked: float
) -> dict[str, Any]:
    frames = 0
    for t, picture in pictures(path):
        see(t, picture)
        frames += 1
    events = finish() or []
    seconds = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - worked}
    return {"frames": frames, **seconds, "events": [vars(event) for event in events]}


def main(
    video: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    mesh_alone: Annotated[bool, typer.Option("--mesh-alone", help="Decode and find the mesh, nothing else.")] = False,
) -> None:
    """Analyse a video; its figures go to stdout as JSON."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cv2.setNumThreads(1)  # MediaPipe's threads cannot be limited, but they are waited for
    if not mesh_alone:
        import torch

        torch.set_num_threads(1)
    with native_output_hidden():
        found = find_meshes(video) if mesh_alone else analyse(video)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # the machine code is what it is measured against
    typer.run(main)
