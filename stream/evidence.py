"""The pictures behind the last events: drawn as PNG, held in memory, gone with the process.

The flow is drawn in colours: the hue says where a point moved to, the saturation how far; what did not move is white.

    hue     right red, down yellow-green, left cyan, up violet (the angle of (u, v) on the usual wheel)
    full    saturation at FULL_PX pixels, or at what one pixel in a hundred exceeds where that is more
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Literal, get_args

import cv2
import numpy as np

from engine.pipeline import Evidence as Behind
from engine.types import F32, U8
from stream.feed import Evidence

FULL_PX = 1.0

Picture = Literal["onset", "apex", "flow"]
PICTURES: tuple[Picture, ...] = get_args(Picture)


class Shelf:
    """The pictures of the last `capacity` events; any thread may put or get."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[str, Evidence] = OrderedDict()

    def put(self, evidence: Evidence) -> None:
        """Keep an event's pictures, in place of earlier ones of it; the oldest event's fall out."""
        with self._lock:
            self._kept.pop(evidence.event, None)
            self._kept[evidence.event] = evidence
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)

    def get(self, event: str, picture: str) -> bytes | None:
        """A PNG of PICTURES, or None where there is none of that event or name."""
        with self._lock:
            found = self._kept.get(event)
        return getattr(found, picture) if found is not None and picture in PICTURES else None

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)


def drawn(behind: Behind, event: str, stream: str) -> Evidence:
    """What the pipeline knows of an event, as pictures."""
    return Evidence(event, stream, onset=_png(behind.onset), apex=_png(behind.apex), flow=_png(flow_colours(behind.flow)))


def flow_colours(flow: F32) -> U8:
    """A flow [2, H, W] of (u, v) in pixels as a picture [H, W, 3] RGB; white where nothing moves."""
    size = np.hypot(flow[0], flow[1])
    full = max(FULL_PX, float(np.percentile(size, 99)))
    angle = np.arctan2(flow[1], flow[0]) % (2 * np.pi)
    wheel = np.empty((*size.shape, 3), np.float32)
    wheel[..., 0] = np.degrees(angle)
    wheel[..., 1] = np.minimum(size / full, 1)
    wheel[..., 2] = 1
    return np.asarray(np.rint(cv2.cvtColor(wheel, cv2.COLOR_HSV2RGB) * 255), np.uint8)


def _png(picture: U8) -> bytes:
    shown = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    _, data = cv2.imencode(".png", shown)
    return data.tobytes()
