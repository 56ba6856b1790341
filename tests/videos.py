"""Video files for tests, written through PyAV with content that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

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
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
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


def write_flashes(
    path: Path,
    times: Sequence[float],
    flashes: Sequence[float],
    *,
    sound: str = "aac",
    rate: int = 48_000,
    heard_from: float = 0.0,
    start: float = 0.0,
) -> Path:
    """A video of black pictures at these times (seconds) with white ones for .1 s from each flash on, and sound with a click at
    each. The sound starts at heard_from; start is added to all time stamps. H.264 with a coding of sound that path can hold."""
    samples = np.zeros(round((times[-1] - heard_from) * rate), np.float32)
    for flash in flashes:
        first = round((flash - heard_from) * rate)
        samples[first : first + rate // 100] = 0.8 * np.sin(np.arange(rate // 100) * 2 * np.pi * 1000 / rate)
    time_base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        video.codec_context.time_base = time_base
        audio: Any = container.add_stream(sound, rate=rate, layout="mono")
        played = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        played.rate, played.pts, played.time_base = rate, round((start + heard_from) * rate), Fraction(1, rate)
        resampler = av.AudioResampler(format=audio.codec_context.format.name, layout="mono", rate=rate)
        packets = [packet for part in resampler.resample(played) for packet in audio.encode(part)] + audio.encode(None)
        for t in times:
            lit = any(flash <= t + 1e-6 < flash + 0.1 for flash in flashes)
            picture = av.VideoFrame.from_ndarray(np.full((120, 160), 255 * lit, np.uint8), format="gray").reformat(
                format="yuv420p"
            )
            picture.pts, picture.time_base = round((start + t) / time_base), time_base
            packets += video.encode(picture)
        packets += video.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def read_flashes(path: Path, rows: int = 100) -> tuple[list[float], list[float]]:
    """When the upper rows of a video's pictures become white and when its sound clicks, seconds."""
    seen, heard = [], []
    with av.open(str(path)) as container:
        was_lit = False
        for picture in container.decode(video=0):
            is_lit = bool(picture.to_ndarray(format="gray")[:rows].mean() > 120)
            if is_lit and not was_lit:
                seen.append(float(picture.time))
            was_lit = is_lit
    with av.open(str(path)) as container:
        resampler, last = av.AudioResampler(format="fltp", layout="mono"), -1.0
        for part in (part for frame in container.decode(audio=0) for part in resampler.resample(frame)):
            for number in np.flatnonzero(np.abs(part.to_ndarray()[0]) > 0.2):
                t = float((part.time or 0.0) + number / part.sample_rate)
                if t > last + 0.2:
                    heard.append(t)
                last = t
    return seen, heard
