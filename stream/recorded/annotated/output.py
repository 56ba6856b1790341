"""annotated.mp4: drawn when the analysis is over, in a second pass over the video.

An expression is known only after its end, but is shown from its onset on. So the analysis keeps where the faces were
(`Spool`) and what was found; then the video is read again, drawn on and encoded.
"""

from __future__ import annotations

import math
import shutil
import threading
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from engine.errors import InputError, OutputError, SourceError
from engine.types import Activity, Event, Face, Frame, Mark, Observation
from stream.files import replacing, write_errors
from stream.recorded.annotated.canvas import Canvas
from stream.recorded.annotated.findings import Findings
from stream.recorded.annotated.movie import Colours, Movie
from stream.recorded.annotated.overlay import draw_face
from stream.recorded.annotated.sound import OutputClock, Sound
from stream.recorded.annotated.spool import Place, Spool
from stream.recorded.annotated.strip import Layout, draw_strip
from stream.recorded.output import Output
from stream.sources.clock import DEFAULT_STEP_S, Restart
from stream.sources.decoding import picture_track
from stream.sources.file import open_video

MAX_LANES = 3
"""Faces whose motion is drawn below the pictures."""

Drawn = Callable[[int, int], None]
"""Called after each picture of the second pass: pictures drawn, pictures in all."""


class AnnotatedVideo(Output):
    """Writes annotated.mp4 into folder. Raises InputError for a video that can be read only once, OutputError, SourceError.

    Setting stop ends the second pass; no video is left then.
    """

    def __init__(
        self, video: Path, folder: Path, *, stop: threading.Event | None = None, progress: Drawn | None = None
    ) -> None:
        if video.exists() and not video.is_file():
            raise InputError(f"{video} can be read only once, so it cannot be annotated; leave out --annotate")
        self.path = folder / "annotated.mp4"
        self._video, self._stop, self._progress = video, stop or threading.Event(), progress
        self._findings = Findings()
        self._spool: Spool | None = None
        self._times: array[float] = array("d")
        self._size, self._origin = (0, 0), 0.0

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """Keep where the faces are in the next frame."""
        if self._spool is None:
            self._remove_old()
            self._spool = Spool(self.path.parent)
        self._spool.append(faces, observations)
        for seen in observations:
            self._findings.observe(seen)
        self._times.append(frame.t)
        self._size = max(self._size[0], frame.width), max(self._size[1], frame.height)
        self._origin = origin

    def event(self, event: Event, origin: float) -> None:
        """Keep an event."""
        self._findings.add_event(event)

    def activity(self, activity: Activity, origin: float) -> None:
        """Keep an activity."""
        self._findings.add_activity(activity)

    def finish(self, summary: dict[str, Any]) -> None:
        """Read the video again, draw and encode it. Where the user stopped before, there is no video."""
        if self._spool is None or self._stop.is_set():
            return
        restarts = [Restart(**one) for one in summary["video"]["clock_restarts"]]
        try:
            with write_errors(self.path), replacing(self.path) as temporary:
                self._write(temporary, restarts, whole=summary["problem"] is None)
        except av.error.FFmpegError as error:
            raise OutputError(f"{self.path} cannot be written: {(error.strerror or str(error)).lower()}") from error

    def close(self) -> None:
        """Free the temporary file."""
        if self._spool is not None:
            self._spool.close()

    def _remove_old(self) -> None:
        """Remove what an earlier run left, finished or killed."""
        with write_errors(self.path):
            self.path.unlink(missing_ok=True)
            for left in self.path.parent.glob(f".{self.path.name}.*"):
                shutil.rmtree(left)

    def _write(self, path: Path, restarts: Sequence[Restart], *, whole: bool) -> None:
        """Write the MP4; whole: the video was read to its end, so that all of its sound belongs to it."""
        assert self._spool is not None
        lanes = self._findings.faces(MAX_LANES)
        layout = Layout.of(*self._size, len(lanes))
        canvas = Canvas(layout.width, layout.whole)
        count, step = len(self._times), self._step()
        ends = [*self._times[1:], self._times[-1] + step]
        with (
            open_video(self._video) as source,
            closing(Sound(self._video, OutputClock(self._origin, restarts))) as sound,
            Movie(path, sound, (canvas.width, canvas.height), 1 / step, _colours(self._video)) as movie,
        ):
            drawn = 0
            for places, frame, end in zip(self._spool, source, ends, strict=False):
                if self._stop.is_set():
                    raise OutputError(f"{self.path} is not written: stopped by the user")
                self._draw(canvas, layout, lanes, frame, places)
                movie.write(canvas.pixels, frame.t - self._origin, end - frame.t)
                drawn += 1
                if self._progress is not None:
                    self._progress(drawn, count)
            if drawn < count:
                raise SourceError(f"{self._video}: {count - drawn} of {count} pictures could not be read again to annotate")
            movie.finish(math.inf if whole else ends[-1] - self._origin)

    def _draw(self, canvas: Canvas, layout: Layout, lanes: list[int], frame: Frame, places: list[Place]) -> None:
        mark = Mark(frame.index, frame.t)
        across, down = canvas.show(frame, layout.width, layout.height)
        for place in places:
            draw_face(canvas, layout, place.moved(across, down), self._findings, mark, named=len(lanes) > 1)
        draw_strip(canvas, layout, self._findings, lanes, mark, origin=self._origin)

    def _step(self) -> float:
        """The usual time from picture to picture, seconds."""
        return float(np.median(np.diff(self._times))) if len(self._times) > 1 else DEFAULT_STEP_S


def _colours(video: Path) -> Colours:
    """How the pixels of the frames of a video are meant."""
    with av.open(f"file:{video}", options={"protocol_whitelist": "file"}) as container:
        track = picture_track(container)
        assert track is not None  # it was read before
        context = track.codec_context
        return Colours.of(context, kept=context.pix_fmt in ("yuv420p", "yuvj420p"))
