"""Video files for tests, written through PyAV with content that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def quadrants(width: int, height: int) -> Picture:
    """[H, W, 3] RGB: top left white, top right red, bottom left green, bottom right black."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255
    picture[: height // 2, width // 2 :, 0] = 220
    picture[height // 2 :, : width // 2, 1] = 200
    return picture


def stepping(width: int, height: int, count: int) -> list[Picture]:
    """Pictures of the quadrants under a grey bar whose brightness tells the picture's number (40 + 4 * (number mod 50))."""
    pictures = []
    for number in range(count):
        picture = quadrants(width, height)
        picture[: height // 4] = 40 + 4 * (number % 50)
        pictures.append(picture)
    return pictures


def write_video(
    path: Path,
    pictures: Iterable[Picture],
    *,
    rate: Fraction | int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB pictures; times (seconds) override the constant rate; rotation is stored as metadata, counterclockwise."""
    time_base = Fraction(1, 90_000)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                if rotation is not None:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            t = times[number] if times is not None else number / rate
            frame.pts, frame.time_base = round(t / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_y4m(path: Path, pictures: Iterable[Picture], *, rate: int = 30) -> Path:
    """RGB pictures as raw YUV 4:2:0, which Chromium takes for its camera; width and height even."""
    with path.open("wb") as file:
        for number, picture in enumerate(pictures):
            if number == 0:
                height, width = picture.shape[:2]
                file.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


def write_tone(path: Path, seconds: float = 0.5) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        samples = (np.sin(np.arange(round(16_000 * seconds)) * 0.17) * 0.3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
