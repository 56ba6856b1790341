"""The mesh points that registration follows: those of the head itself, and those of the parts that expressions move."""

from __future__ import annotations

import numpy as np

HEAD_POINTS = (
    *(168, 6, 197, 195, 5),  # bridge of the nose
    *(127, 34, 143, 234, 93, 116, 123, 356, 264, 372, 454, 323, 345, 352),  # temples and cheekbones
    *(21, 54, 103, 67, 10, 297, 332, 284, 251),  # hairline
)
"""Mesh points that expressions hardly move."""

REGIONS: dict[str, tuple[int, ...]] = {
    "brow_outer_left": (70, 63, 105),
    "brow_inner_left": (66, 107),
    "glabella": (9, 8),
    "brow_inner_right": (336, 296),
    "brow_outer_right": (334, 293, 300),
    "forehead": (108, 151, 337),
    "nose_left": (48, 64, 129),
    "nose_right": (278, 294, 358),
    "cheek_left": (36, 50, 205),
    "cheek_right": (266, 280, 425),
    "upper_lip": (37, 0, 267),
    "lip_corner_left": (61, 57, 186),
    "lip_corner_right": (291, 287, 410),
    "lower_lip": (84, 17, 314),
    "chin": (18, 200, 199),
}
"""Mesh points of each part that expressions move; left and right are the picture's."""

REGION_NAMES = tuple(REGIONS)

TRACKED = np.array(HEAD_POINTS + tuple(i for points in REGIONS.values() for i in points))
"""Mesh points [P] where patches lie: those of the head, then those of each region."""

HEAD = slice(0, len(HEAD_POINTS))
"""Which of TRACKED the head's motion is fitted to."""

VOTES = np.array([1.0 if k < len(HEAD_POINTS) else 0.15 for k in range(len(TRACKED))])
"""How much each of TRACKED counts in the fit of the head's motion, [P]."""
