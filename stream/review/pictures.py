"""Pictures of a video's frames for the review page: JPEGs, a chunk of consecutive frames at a time, of all or of a region.

A chunk is a length (4 bytes, big endian), a header of so many bytes, and the JPEGs. The header is JSON: {"first": number of the
first frame, "frames": [{"t", "size"}, ...]}.
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from engine.types import Frame
from stream.review.frames import FrameReader
from stream.sources.pixels import resized

CHUNK = 24
"""Frames of a chunk."""
LARGEST = 960
"""The longest side of a picture, pixels."""
QUALITY = 88
CACHE_BYTES = 192_000_000


@dataclass(frozen=True)
class Region:
    """A part of the picture, in frame pixels."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Region | None:
        """The region x,y,width,height; None where the text is none."""
        parts = text.split(",")
        if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
            return None
        region = cls(*map(int, parts))
        return region if region.width >= 8 and region.height >= 8 else None


class Pictures:
    """Chunks of pictures, the last ones kept. Used on one thread at a time."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._kept: OrderedDict[tuple[int, Region | None], bytes] = OrderedDict()
        self._bytes = 0

    def chunk(self, number: int, region: Region | None) -> bytes:
        """Chunk `number`: the frames from CHUNK * number on, fewer at the video's end. Raises SourceError."""
        key = (number, region)
        if key not in self._kept:
            frames = self._reader.read(CHUNK * number, CHUNK * (number + 1) - 1)
            self._keep(key, encoded(frames, CHUNK * number, region))
        self._kept.move_to_end(key)
        return self._kept[key]

    def _keep(self, key: tuple[int, Region | None], chunk: bytes) -> None:
        self._kept[key] = chunk
        self._bytes += len(chunk)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def encoded(frames: Iterable[Frame], first: int, region: Region | None) -> bytes:
    """Frames as a chunk."""
    made = [(frame.t, _jpeg(frame, region)) for frame in frames]  # large ones do not all fit into memory
    pictures = [picture for _, picture in made]
    entries = [{"t": round(t, 6), "size": len(picture)} for t, picture in made]
    header = json.dumps({"first": first, "frames": entries}).encode()
    return b"".join((struct.pack(">I", len(header)), header, *pictures))


def _jpeg(frame: Frame, region: Region | None) -> bytes:
    picture = frame.rgb
    if region is not None:
        x, y = min(region.x, frame.width - 8), min(region.y, frame.height - 8)
        picture = picture[max(y, 0) : region.y + region.height, max(x, 0) : region.x + region.width]
    height, width = picture.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    picture = resized(np.ascontiguousarray(picture), max(1, round(width * scale)), max(1, round(height * scale)))
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()
