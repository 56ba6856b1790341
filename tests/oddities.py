"""Files as people report them in public: odd clocks, tracks, rates, pixels and losses, each made from one rendered clip."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np

from tests.videos import Picture, write_video
from tools.clips import ClipSpec, Truth, plan, preset, render_frames

FPS = 30
SIZE = (320, 240)
TIME_BASE = Fraction(1, 90_000)


def base_spec(photo: str = "hopper", seed: int = 4, duration_s: float = 10.0, n_events: int = 3) -> ClipSpec:
    """Three expressions, the second of which is under way at 5 s, on a face that sways, turns and blinks."""
    return preset(
        *("benchmark", photo, FPS, seed, duration_s),
        **{"size": SIZE, "eye_px": 64, "n_events": n_events, "macro_fraction": 0.5},
        **{"micro_px": (2.0, 3.0), "macro_px": (3.0, 5.0)},
    )


@dataclass(frozen=True, eq=False)
class Base:
    """The clip that all others are made from: its file, its pictures [H, W, 3] RGB, what is true of it, and a free folder."""

    path: Path
    pictures: Sequence[Picture]
    truth: Truth
    folder: Path


def make_base(folder: Path, seed: int = 4) -> Base:
    """Render it once."""
    spec = base_spec(seed=seed)
    pictures = [picture for _, picture in render_frames(spec)]
    return Base(h264(folder / "base.mp4", pictures), pictures, plan(spec), folder)


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


def filtered(path: Path, source: Path, steps: Sequence[tuple[str, str]], **settings: Any) -> Path:
    """The video through filters of FFmpeg and encoded again as H.264."""
    options = {"preset": "veryfast", "crf": "18", "threads": "1", **settings.pop("options", {})}
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        track = reading.streams.video[0]
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=track), *(graph.add(*step) for step in steps), graph.add("buffersink")
        ).configure()
        stream = None
        for picture in _pulled(graph, reading.decode(track)):
            if stream is None:
                stream = writing.add_stream("libx264", rate=settings.get("rate", FPS), options=options)
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, picture.format.name
                if "aspect" in settings:
                    stream.codec_context.sample_aspect_ratio = settings["aspect"]
            picture.pict_type = 0
            writing.mux(stream.encode(picture))
        assert stream is not None
        writing.mux(stream.encode(None))
    return path


def _pulled(graph: av.filter.Graph, pictures: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    for picture in [*pictures, None]:
        graph.push(picture)
        while True:
            try:
                pulled = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            assert isinstance(pulled, av.VideoFrame)
            yield pulled


def resized(pictures: Sequence[Picture], width: int, height: int) -> list[Picture]:
    """The pictures at another size."""
    return [np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA), np.uint8) for one in pictures]


def joined(path: Path, *parts: Path) -> Path:
    """Transport streams one behind the other, their times going on."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
