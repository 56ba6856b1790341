"""The evidence of the last events: kept in memory, drawn as PNG on request.

The flow is drawn in colours: hue is the direction of motion, saturation its length; what did not move is white.

    hue     right red, down yellow-green, left cyan, up violet (the angle of (u, v) on the usual wheel)
    full    saturation at FULL_PX pixels, or at the 99th percentile of the lengths where that is more
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import cv2
import numpy as np

from engine.types import F32, U8, Evidence

FULL_PX = 1.0

PICTURES = ("onset", "apex", "flow")


class EvidenceStore:
    """The evidence of the last `capacity` events; any thread may put or get."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[str, tuple[Evidence, dict[str, bytes]]] = OrderedDict()

    def put(self, event: str, evidence: Evidence) -> None:
        """Keep the evidence of an event, replacing what was kept of it; the oldest event's is dropped.

        Nothing is drawn yet; what was drawn of the very same evidence is kept.
        """
        with self._lock:
            known, drawn = self._kept.pop(event, (None, {}))
            self._kept[event] = evidence, drawn if known is evidence else {}
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)

    def get(self, event: str, picture: str) -> bytes | None:
        """A PNG of PICTURES, drawn on the first request; None where there is none of that event or name."""
        with self._lock:
            found = self._kept.get(event)
        if found is None or picture not in PICTURES:
            return None
        evidence, drawn = found
        if picture not in drawn:
            drawn[picture] = _png(flow_colours(evidence.flow) if picture == "flow" else getattr(evidence, picture))
        return drawn[picture]

    def __contains__(self, event: str) -> bool:
        """Whether the event's evidence is kept."""
        with self._lock:
            return event in self._kept


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
