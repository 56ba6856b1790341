"""The pictures behind the last events: held in memory, drawn as PNG once somebody asks for them, gone with the process.

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

from engine.types import F32, U8, Evidence

FULL_PX = 1.0

Picture = Literal["onset", "apex", "flow"]
PICTURES: tuple[Picture, ...] = get_args(Picture)


class Shelf:
    """The pictures of the last `capacity` events; any thread may put or get."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[str, _Drawing] = OrderedDict()

    def put(self, event: str, evidence: Evidence) -> None:
        """Keep the evidence of an event, replacing what was kept of it; the oldest event's is dropped. Nothing is drawn yet."""
        with self._lock:
            self._kept.pop(event, None)
            self._kept[event] = _Drawing(evidence)
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)

    def get(self, event: str, picture: str) -> bytes | None:
        """A PNG of PICTURES, or None where there is none of that event or name."""
        with self._lock:
            found = self._kept.get(event)
        return found.png(picture) if found is not None and picture in PICTURES else None

    def __contains__(self, event: str) -> bool:
        """Whether the event's pictures can be had; draws none."""
        with self._lock:
            return event in self._kept

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)


class _Drawing:
    """An event's pictures, each drawn once; two threads that ask at once draw the same."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._drawn: dict[str, bytes] = {}

    def png(self, picture: str) -> bytes:
        if picture not in self._drawn:
            seen = self._evidence
            shown = flow_colours(seen.flow) if picture == "flow" else seen.onset if picture == "onset" else seen.apex
            self._drawn[picture] = _png(shown)
        return self._drawn[picture]


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
