"""The pictures of an event: a film strip of the registered face from onset to apex, and the flow between the two in colours."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from engine.errors import OutputError
from engine.types import U8, Crop, Event
from stream.events.evidence import flow_colours

FRAMES = 5
"""Pictures of a strip at most: the onset, moments evenly between, the apex."""

MAX_BYTES = 7_000
"""Of a strip; noisy pictures are fewer, blurred, or of lower quality."""

FLOW_QUALITY = 70
"""Of WebP, 0 to 100."""

_TRIALS = ((FRAMES, 70, 0.0), (FRAMES, 50, 0.0), (FRAMES, 30, 0.7), (3, 30, 1.0), (2, 20, 2.5))
"""How many pictures, in which quality, and blurred by how many pixels, until they fit."""


def strip(event: Event, crops: Sequence[Crop]) -> tuple[int, str]:
    """How many pictures show the event, and their strip [n * 128, 128], the first above, as WebP in base64.

    crops are those around the event. Without any between onset and apex, the strip has these two alone.
    """
    if event.evidence is None:
        return 0, ""
    between = [crop.pixels for crop in crops if event.onset.frame < crop.mark.frame < event.apex.frame]
    pictures = [event.evidence.onset, *between, event.evidence.apex]
    for most, quality, sigma in _TRIALS:
        chosen = np.unique(np.linspace(0, len(pictures) - 1, most).round().astype(int))
        shown = (cv2.GaussianBlur(pictures[k], (0, 0), sigma) if sigma else pictures[k] for k in chosen)
        data = _webp(np.concatenate([np.asarray(picture, np.uint8) for picture in shown]), quality)
        if len(data) <= MAX_BYTES:
            break
    return len(chosen), base64.b64encode(data).decode()


def flow(event: Event) -> str:
    """The flow from onset to apex in the colours of `stream.events.evidence`, as WebP in base64; "" where there is none."""
    if event.evidence is None:
        return ""
    drawn = np.asarray(cv2.cvtColor(flow_colours(event.evidence.flow), cv2.COLOR_RGB2BGR), np.uint8)
    return base64.b64encode(_webp(drawn, FLOW_QUALITY)).decode()


def _webp(picture: U8, quality: int) -> bytes:
    done, data = cv2.imencode(".webp", picture, (cv2.IMWRITE_WEBP_QUALITY, quality))
    if not done:
        raise OutputError("OpenCV cannot write WebP pictures here; analyse without --pictures")
    return data.tobytes()
