"""An MP4 that browsers play: H.264 with the time of each picture, and the sound of the original."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from engine.types import U8
from stream.recorded.annotated.sound import Sound

TIME_BASE = Fraction(1, 90_000)
QUALITY = {"preset": "veryfast", "crf": "21", "bf": "0"}
"""Settings of the encoder; pictures in the order of their times are what every player seeks in best."""
KEY_S = 2.0
"""A key picture so often: players jump to them."""


@dataclass(frozen=True)
class Colours:
    """How the values of a video's pixels are meant, as numbers of H.273; range 1 is limited, 2 full."""

    range: int = 0
    space: int = 0
    primaries: int = 0
    transfer: int = 0

    @classmethod
    def of(cls, context: Any, *, kept: bool) -> Colours:
        """Those of a decoder; kept: its pictures are shown as they are decoded, not converted."""
        full = context.color_range == 2 and kept
        return cls(2 if full else 1, context.colorspace, context.color_primaries, context.color_trc)


class Movie:
    """Write pictures and sound to path; a context manager. Raises FFmpegError and OSError.

    size is (width, height), both even; rate is how many pictures there are a second on average.
    """

    def __init__(self, path: Path, sound: Sound, size: tuple[int, int], rate: float, colours: Colours) -> None:
        self._output = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        fps = Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
        self._stream = self._output.add_stream("libx264", rate=fps, options=QUALITY)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt, self._stream.time_base = "yuv420p", TIME_BASE
        context = self._stream.codec_context
        context.time_base, context.gop_size = TIME_BASE, max(1, round(KEY_S * rate))
        context.color_range, context.colorspace = colours.range, colours.space
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        self._sound = sound
        sound.start(self._output)

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(av.error.FFmpegError, OSError) if kind else nullcontext():  # what went wrong before is raised
            self._output.close()

    def write(self, pixels: U8, t: float, duration: float) -> None:
        """Add a picture, the planes of YUV 4:2:0 [H * 3 / 2, W], that is shown from t on for so long; seconds."""
        for packet in self._sound.until(t):
            self._output.mux(packet)
        picture = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        picture.pts, picture.time_base = round(t / TIME_BASE), TIME_BASE
        picture.duration = max(1, round(duration / TIME_BASE))
        self._output.mux(self._stream.encode(picture))

    def finish(self, end: float) -> None:
        """Add what is left of the sound before end, seconds."""
        self._output.mux(self._stream.encode(None))
        for packet in self._sound.until(end):
            self._output.mux(packet)
