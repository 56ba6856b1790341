"""Files as people report them in public: odd clocks, tracks, rates, pixels and losses, each made from one rendered clip."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import IO, Any

import av
import cv2
import numpy as np

from apexstream.clips import ClipSpec, preset, render_frames
from tests.videos import Picture, write_video

FPS = 30
SIZE = (320, 240)


FRAMES = 195
"""Six and a half seconds."""


def base_spec(photo: str = "hopper", seed: int = 4) -> ClipSpec:
    """Three expressions in ten seconds on a face that sways, turns and blinks: a micro from 2.8 to 3.2 s, another from 4.2 to
    5.4 s, and one after the frames that are used."""
    return preset(
        *("benchmark", photo, FPS, seed, 10.0),
        **{"size": SIZE, "eye_px": 64, "n_events": 3, "macro_fraction": 0.5},
        **{"micro_px": (2.0, 3.0), "macro_px": (3.0, 5.0)},
    )


@dataclass(frozen=True, eq=False)
class Base:
    """The clip that all others are made from: its file, its pictures [H, W, 3] RGB, and a folder for the others."""

    path: Path
    pictures: Sequence[Picture]
    folder: Path


def make_base(folder: Path) -> Base:
    """Render it once."""
    pictures = pictures_of(base_spec(), FRAMES)
    return Base(h264(folder / "base.mp4", pictures), pictures, folder)


def pictures_of(spec: ClipSpec, count: int) -> list[Picture]:
    """The first pictures of a rendered clip."""
    return [picture for _, picture in islice(render_frames(spec), count)]


def h264(path: Path, pictures: Iterable[Picture], **settings: Any) -> Path:
    """The pictures as H.264, quickly and well."""
    options = {"preset": "veryfast", "crf": "20", "threads": "1", **settings.pop("options", {})}
    return write_video(path, pictures, options=options, **settings)


# --- containers: the pictures stay as they are encoded ------------------------------------------------------------------


def remuxed(
    source: Path,
    target: Path,
    stamps: Callable[[float], float | None] = lambda t: t,
    **container_options: str,
) -> Path:
    """The packets of source in another container; stamps gives each presentation time (seconds) another, or None to lose
    the packet. Decoding times move alike."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options=container_options) as writing:
        track = reading.streams.video[0]
        copy = writing.add_stream_from_template(track)
        assert track.time_base is not None
        for packet in reading.demux(track):
            if packet.pts is None or packet.dts is None:
                continue
            t = float(packet.pts * track.time_base)
            moved = stamps(t)
            if moved is None:
                continue
            shift = round((moved - t) / track.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = copy
            writing.mux(packet)
    return target


def with_matrix(source: Path, target: Path, matrix: tuple[float, float, float, float]) -> Path:
    """The MP4 file with another display matrix (a, b, c, d): x' = a x + c y, y' = b x + d y."""
    data = bytearray(source.read_bytes())
    a, b, c, d = (round(value * 65536) for value in matrix)
    at = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(bytes(data))
    return target


def with_tracks(path: Path, *tracks: tuple[Sequence[Picture], bool], codec: str = "libx264") -> Path:
    """A file of several tracks of pictures, in order; the second of each says whether it is the default track."""
    with av.open(str(path), "w") as container:
        streams = []
        for pictures, default in tracks:
            stream = container.add_stream(codec, rate=FPS, options={"preset": "veryfast", "crf": "20", "threads": "1"})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
            streams.append(stream)
        for number in range(max(len(pictures) for pictures, _ in tracks)):
            for stream, (pictures, _) in zip(streams, tracks, strict=True):
                if number < len(pictures):
                    frame = av.VideoFrame.from_ndarray(pictures[number], format="rgb24").reformat(format="yuv420p")
                    frame.pts, frame.time_base = number, Fraction(1, FPS)
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


# --- pictures: encoded again --------------------------------------------------------------------------------------------


def repeated(pictures: Sequence[Picture], how: str, seed: int = 1) -> tuple[list[Picture], Fraction]:
    """The pictures at a rate that their source did not keep, and that rate: "24 in 30", "30 in 60" or "at random"."""
    if how == "30 in 60":
        return [picture for picture in pictures for _ in range(2)], Fraction(2 * FPS)
    if how == "24 in 30":
        return [pictures[number - (number % 5 == 4)] for number in range(len(pictures))], Fraction(FPS)
    again = np.random.default_rng(seed).random(len(pictures)) < 0.31
    kept = [0]
    for number in range(1, len(pictures)):
        kept.append(kept[-1] if again[number] else number)
    return [pictures[number] for number in kept], Fraction(FPS)


def strobed(pictures: Sequence[Picture]) -> list[Picture]:
    """As a camera with an infrared light that burns every second picture sees them."""
    rng = np.random.default_rng(5)
    dark = [np.clip(picture * 0.04 + rng.normal(3, 1.5, picture.shape), 0, 255).astype(np.uint8) for picture in pictures[1::2]]
    return [dark[number // 2] if number % 2 else picture for number, picture in enumerate(pictures)]


def frozen(pictures: Sequence[Picture], start_s: float, end_s: float) -> list[Picture]:
    """The picture stands still from one moment to another, then jumps."""
    first, last = round(start_s * FPS), round(end_s * FPS)
    return [pictures[first] if first <= number < last else picture for number, picture in enumerate(pictures)]


def woven(pictures: Sequence[Picture]) -> list[Picture]:
    """Every two pictures, half a frame apart, as the two fields of one."""
    out = []
    for first, second in zip(pictures[::2], pictures[1::2], strict=False):
        frame = first.copy()
        frame[1::2] = second[1::2]
        out.append(frame)
    return out


def crossing(left: Sequence[Picture], right: Sequence[Picture], start_s: float, end_s: float) -> list[Picture]:
    """Two faces that change places from one moment to another, the left one in front: [240, 640, 3]."""
    share = np.clip((np.arange(len(left)) / FPS - start_s) / (end_s - start_s), 0, 1)
    places = 140 + 360 * share * share * (3 - 2 * share)
    return [
        _put(_put(_backdrop(), behind, 640 - round(x)), before, round(x))
        for before, behind, x in zip(left, right, places, strict=True)
    ]


def leaving(left: Sequence[Picture], right: Sequence[Picture], start_s: float, end_s: float) -> list[Picture]:
    """Two faces, of which the right one is away from one moment to another: [240, 640, 3]."""
    out = []
    for number, (stays, leaves) in enumerate(zip(left, right, strict=True)):
        picture = _put(_backdrop(), stays, 140)
        out.append(picture if start_s <= number / FPS < end_s else _put(picture, leaves, 500))
    return out


def _backdrop() -> Picture:
    grain = np.random.default_rng(0).normal(110, 60, (SIZE[1], 2 * SIZE[0], 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(grain, (0, 0), 8), 0, 255).astype(np.uint8)


def _put(canvas: Picture, picture: Picture, x: int) -> Picture:
    """The head of a picture over the canvas, its middle at x."""
    head = picture[2:238, 75:245].astype(np.float32)
    mask = np.zeros(head.shape[:2], np.float32)
    cv2.ellipse(mask, (85, 118), (77, 112), 0, 0, 360, 1.0, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    out = canvas.copy()
    place = out[2:238, x - 85 : x + 85]
    place[:] = soft * head + (1 - soft) * place
    return out


def resized(pictures: Sequence[Picture], width: int, height: int) -> list[Picture]:
    """The pictures at another size."""
    return [np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA), np.uint8) for one in pictures]


def mixed_mjpeg(path: Path, first: Sequence[Picture], second: Sequence[Picture]) -> Path:
    """An AVI of JPEG pictures, the first ones 4:2:2, the others 4:2:0."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("mjpeg", rate=FPS)
        assert isinstance(track, av.VideoStream)
        track.width, track.height, track.pix_fmt = SIZE[0], SIZE[1], "yuvj422p"
        for number, picture in enumerate([*first, *second]):
            encoder = av.CodecContext.create("mjpeg", "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.time_base = SIZE[0], SIZE[1], Fraction(1, FPS)
            encoder.pix_fmt = "yuvj422p" if number < len(first) else "yuvj420p"
            encoder.options = {"qmin": "2", "qmax": "4"}
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=encoder.pix_fmt)
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.pts = packet.dts = number
                packet.duration, packet.time_base, packet.stream = 1, Fraction(1, FPS), track
                container.mux(packet)
    return path


def without_index(source: Path, target: Path) -> Path:
    """The AVI file as a recorder leaves it that was switched off: its index, at the end, is missing."""
    data = source.read_bytes()
    target.write_bytes(data[: data.rindex(b"idx1")])
    return target


def without_duration(source: Path, target: Path) -> Path:
    """A video of a browser's recorder: it is written on the fly, and nobody goes back to say how long it became."""
    live = {"live": "1"}
    with (
        target.open("wb") as file,
        av.open(str(source)) as reading,
        av.open(_Pipe(file), "w", format="webm", options=live) as writing,
    ):
        track = reading.streams.video[0]
        copy = writing.add_stream_from_template(track)
        for packet in reading.demux(track):
            if packet.dts is not None:
                packet.stream = copy
                writing.mux(packet)
    return target


class _Pipe:
    """A file in which nobody can go back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def joined(path: Path, *parts: Path) -> Path:
    """Transport streams one behind the other, their times going on."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
