"""Pictures of a camera whose light flashes: where every second one or so is dark, only the lit ones show a face.

Infrared cameras made for logins light every second picture, so that a program can tell skin from a screen.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

from engine.types import U8

LOOKED_AT = 12  # pictures that say whether a light flashes,
SWITCHES = 5  # where it went on or off so often among them
DARK = 0.5  # of the brightness of the lit ones: what is less is dark
_STEP = 16  # pixels from sample to sample


class Flashing:
    """Says which pictures are dark because a light flashes; `unlit` counts them."""

    def __init__(self) -> None:
        self.unlit = 0
        self._levels: deque[float] = deque(maxlen=LOOKED_AT)

    def is_dark(self, grey: U8) -> bool:
        """Whether the next picture, [H, W], is one of the dark ones. False while the light does not flash."""
        levels = self._levels
        levels.append(float(np.mean(grey[::_STEP, ::_STEP])))
        limit = DARK * max(levels)
        if levels[-1] >= limit:
            return False
        lit = [level >= limit for level in levels]
        flashes = sum(a != b for a, b in pairwise(lit)) >= SWITCHES
        self.unlit += flashes
        return flashes
