"""One clip as the product sees it: rendered, encoded, decoded, fed to the pipeline; what was found beside what is true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apexstream.clips import Truth, write_clip
from apexstream.clips.spec import BlinkTruth, EventTruth, read_truth, truth_path
from apexstream.native_output import native_output_hidden
from engine.types import Event
from lab.clip_bench.jobs import Job


@dataclass(frozen=True)
class Found:
    """One final event. announced_t is the source time of the frame that decided its first provisional form (None: there was
    none), final_t that of the frame that decided the final one; all times in seconds of the source."""

    onset: float
    apex: float
    offset: float
    kind: str
    label: str
    confidence: float
    intensity: float
    truncated: bool
    announced_t: float | None
    final_t: float


@dataclass(frozen=True)
class Watched:
    """A clip's truth and what the pipeline made of it. withdrawn counts provisional events that never became final; pipeline_s
    is the time of decoding and pipeline alone."""

    photo: str
    fps: float
    seed: int
    renderer: str
    seconds: float
    frames: int
    frames_with_face: int
    truths: tuple[EventTruth, ...]
    blinks: tuple[BlinkTruth, ...]
    found: tuple[Found, ...]
    blinks_recognized: int
    withdrawn: int
    pipeline_s: float
    model: str

    @property
    def name(self) -> str:
        """The clip in words."""
        return f"{self.photo} {self.fps:g} fps seed {self.seed}"

    @classmethod
    def of(cls, record: dict[str, Any]) -> Watched:
        """Back from its JSON form."""
        return cls(
            **{
                **record,
                "truths": tuple(EventTruth(**e) for e in record["truths"]),
                "blinks": tuple(BlinkTruth(**b) for b in record["blinks"]),
                "found": tuple(Found(**f) for f in record["found"]),
            }
        )


@contextmanager
def rendered(job: Job) -> Iterator[tuple[Path, Truth]]:
    """The job's clip and its truth; deleted at the end unless it is to be kept. A kept one is used again."""
    path = job.path
    truth_file = truth_path(path)
    try:
        yield path, read_truth(truth_file) if truth_file.is_file() else write_clip(job.spec, path)
    finally:
        if not job.keep:
            path.unlink(missing_ok=True)
            truth_file.unlink(missing_ok=True)


@native_output_hidden()
def watch(job: Job) -> dict[str, Any]:
    """The JSON form of `Watched` for a job; run in a worker process."""
    with rendered(job) as (path, truth):
        return asdict(_watch(job, path, truth))


def _watch(job: Job, path: Path, truth: Truth) -> Watched:
    from engine import Pipeline
    from stream.sources.file import open_video

    announced: dict[str, float] = {}
    finals: list[Found] = []
    t = 0.0
    pipeline = Pipeline.from_config(job.settings, stream=path.stem)
    began = time.perf_counter()
    with open_video(path, threads=1) as video:
        for frame in video:
            t = frame.t
            _sort(pipeline.feed(frame), t, announced, finals)
    _sort(pipeline.flush(), t, announced, finals)
    took = time.perf_counter() - began
    counts = pipeline.statistics
    pipeline.close()
    return Watched(
        photo=job.spec.photo,
        fps=job.spec.fps,
        seed=job.spec.seed,
        renderer=job.spec.renderer,
        seconds=job.spec.duration_s,
        frames=counts["frames"],
        frames_with_face=counts["frames_with_face"],
        truths=truth.events,
        blinks=truth.blinks,
        found=tuple(finals),
        blinks_recognized=counts["blinks"],
        withdrawn=len(announced) - sum(f.announced_t is not None for f in finals),
        pipeline_s=round(took, 3),
        model=pipeline.model,
    )


def _sort(events: list[Event], t: float, announced: dict[str, float], finals: list[Found]) -> None:
    """Notes when each event was first announced, and keeps the final ones."""
    for event in events:
        if event.state == "provisional" or event.offset is None:
            announced.setdefault(event.id, t)
            continue
        finals.append(
            Found(
                onset=event.onset.t,
                apex=event.apex.t,
                offset=event.offset.t,
                kind=str(event.kind),
                label=event.label,
                confidence=round(event.confidence, 4),
                intensity=round(event.intensity, 3),
                truncated=event.truncated,
                announced_t=announced.get(event.id),
                final_t=t,
            )
        )
