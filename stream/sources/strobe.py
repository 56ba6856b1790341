"""Detects the dark pictures between the flashes of a strobing light, as of infrared cameras made for face login.

Such cameras light every second picture, so that software can distinguish skin from a screen.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

from engine.types import U8

WINDOW = 12
"""Pictures that show whether a light strobes,"""
MIN_SWITCHES = 5
"""where it goes on or off so often among them."""
DARK = 0.5
"""Pictures below this share of the brightest one's brightness are dark."""
_STEP = 16
"""Pixels from sample to sample."""


class StrobeDetector:
    """Finds pictures that are dark because a light strobes; `unlit` counts them."""

    def __init__(self) -> None:
        self.unlit = 0
        self._levels: deque[float] = deque(maxlen=WINDOW)

    def is_dark(self, grey: U8) -> bool:
        """Whether the next picture, [H, W], is one of the dark ones. False while no light strobes."""
        levels = self._levels
        levels.append(float(np.mean(grey[::_STEP, ::_STEP])))
        limit = DARK * max(levels)
        if levels[-1] >= limit:
            return False
        lit = [level >= limit for level in levels]
        strobes = sum(a != b for a, b in pairwise(lit)) >= MIN_SWITCHES
        self.unlit += strobes
        return strobes
