"""One real clip through the pipeline, as `apexstream analyze` takes it: its events, and a strip of pictures for each.

A strip shows the registered face, grey, 128 px wide: onset, apex, offset, and the difference of apex and onset.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from apexstream.native_output import native_output_hidden
from apexstream.pictures import CHANGE_GAIN
from engine.config import PipelineSettings
from engine.errors import InputError, OutputError, SourceError
from engine.pipeline import GAP_S
from engine.registration.align import Registrar
from engine.ring import Ring
from engine.spotting.spotter import BREAK_S
from engine.types import U8, Event, Face, Frame
from lab.clip_bench.real.folder import RealClip

REACH_S = 4.0
"""So long before the frame at hand the offset of an event that becomes final is looked for."""


@dataclass(frozen=True)
class RealJob:
    """One clip to watch. content is the SHA-256 of the file; pictures the folder for strips, None for none."""

    name: str
    path: Path
    content: str
    settings: PipelineSettings
    pictures: Path | None

    @classmethod
    def of(cls, clip: RealClip, settings: PipelineSettings, pictures: Path | None) -> RealJob:
        """Raises InputError where the clip cannot be read."""
        try:
            with clip.path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{clip.path} cannot be read: {error.strerror or error}") from error
        return cls(clip.name, clip.path, content, settings, pictures)

    @property
    def key(self) -> str:
        """Equal for equal files of one name judged with equal settings, with pictures or both without."""
        parts = [self.name, self.content, self.settings.model_dump(mode="json"), self.pictures is not None]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def watch(job: RealJob) -> dict[str, Any]:
    """The record of a clip, JSON form; run in a worker process.

    events are those of events.jsonl, each with picture, the name of its strip (None without). seconds is the length of the
    video, pipeline_s the time of decoding and pipeline without the strips; problem describes what could not be read.
    Raises SourceError where nothing can be read of it.
    """
    with native_output_hidden():
        return _watch(job)


def _watch(job: RealJob) -> dict[str, Any]:
    from engine import Pipeline
    from stream.sources.file import open_video

    with open_video(job.path, threads=1) as video:
        pipeline = Pipeline.from_config(job.settings, stream=job.path.stem)
        strips = _Strips(job)
        events: list[dict[str, Any]] = []
        problem = None
        began = time.perf_counter()
        try:
            for frame in video:
                faces = pipeline.locate(frame)
                events += strips.finals(pipeline.advance(frame, faces))
                strips.note(frame, faces)
        except SourceError as error:
            if not pipeline.statistics["frames"]:
                raise
            problem = str(error)
        events += strips.finals(pipeline.flush())
        pipeline.close()
        took = time.perf_counter() - began - strips.took_s
        facts = video.facts
        return {
            "file": job.name,
            "seconds": facts.duration or 0.0,
            "fps": facts.fps,
            "size": [facts.width, facts.height],
            **pipeline.statistics,
            "events": events,
            "pipeline_s": round(took, 3),
            "model": pipeline.model,
            "problem": problem or video.problem,
        }


@dataclass(eq=False)
class _Followed:
    """A face beside the pipeline, registered as it does that: its crops of late."""

    registrar: Registrar = field(default_factory=Registrar)
    crops: Ring[U8] = field(default_factory=lambda: Ring(REACH_S))
    seen_t: float = 0.0


class _Strips:
    """Keeps what the strips are made of, and writes one for each event that becomes final."""

    def __init__(self, job: RealJob) -> None:
        self.took_s = 0.0
        self._folder = job.pictures
        self._stem = f"{job.path.stem}-{job.key}"
        self._number = 0
        self._faces: dict[int, _Followed] = {}
        self._t: float | None = None
        if self._folder is not None:
            for old in self._folder.glob(f"*-{job.key}-[0-9]*.jpg"):
                old.unlink(missing_ok=True)

    def note(self, frame: Frame, faces: list[Face]) -> None:
        """Keeps the crop of each face: the pipeline gives those of onset and apex only. Comes after `finals`."""
        if self._folder is None:
            return
        began = time.perf_counter()
        if self._t is not None and (frame.gap or not 0 < frame.t - self._t <= GAP_S):
            self._faces.clear()
        self._t = frame.t
        for face in faces:
            followed = self._faces.get(face.id)
            if followed is None or frame.t - followed.seen_t > BREAK_S:
                followed = self._faces[face.id] = _Followed()
            crop = followed.registrar.register(frame, face)
            if crop is not None:
                followed.seen_t = frame.t
                followed.crops.append(frame.t, crop.pixels)
        self.took_s += time.perf_counter() - began

    def finals(self, events: list[Event]) -> list[dict[str, Any]]:
        """The JSON form of the final ones, with their pictures."""
        began = time.perf_counter()
        out = [{**event.as_dict(), "picture": self._write(event)} for event in events if event.state == "final"]
        self.took_s += time.perf_counter() - began
        return out

    def _write(self, event: Event) -> str | None:
        behind = event.evidence
        if self._folder is None or behind is None:
            return None
        offset = None
        if event.offset is not None and event.face in self._faces:
            offset = self._faces[event.face].crops.nearest(event.offset.t)
        self._number += 1
        name = f"{self._stem}-{self._number:03d}.jpg"
        done, jpeg = cv2.imencode(".jpg", strip(behind.onset, behind.apex, offset), [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise OutputError(f"the picture {name} cannot be encoded as JPEG")
        try:
            (self._folder / name).write_bytes(jpeg.tobytes())
        except OSError as error:
            raise OutputError(f"{self._folder / name} cannot be written: {error.strerror}; choose another --out") from error
        return name


def strip(onset: U8, apex: U8, offset: U8 | None) -> U8:
    """[128, 512] grey: onset, apex, offset (plain grey where it is not known), each [128, 128], and apex less onset, enlarged
    CHANGE_GAIN times around the middle grey."""
    change = np.clip(128 + CHANGE_GAIN * (apex.astype(np.float32) - onset), 0, 255).astype(np.uint8)
    return np.hstack([onset, apex, np.full_like(apex, 128) if offset is None else offset, change])
