"""The flow of a change too large for one step: from moment to moment, joined, and refined once from end to end.

TV-L1 finds motions of a few pixels. A mouth that opens wide or brows raised as far as they go move 10 to 25 px of the crop
within a third of a second, but 2 or 3 from frame to frame. Pictures registered to different references may be joined too:
what lies between the references is a motion of the head, and is taken out with it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np

from engine.ops.backend import Backend
from engine.ops.tvl1 import tvl1, tvl1_batch
from engine.recognition.likeness import face_explained, like, read_along
from engine.types import F32

STEPS = 6
"""A chain has no more steps: more of them explain no more. Refining more than once explains more, but of hands before the face
too."""


def spread_out(moments: int) -> list[int]:
    """Which of so many moments between two ends become links of the chain: STEPS - 1 of them at most, evenly."""
    links = min(moments, STEPS - 1)
    return [round((k + 1) * (moments + 1) / (links + 1)) - 1 for k in range(links)]


def chained_flow(pictures: Sequence[F32], landmarks: F32, *, backend: Backend = "auto") -> tuple[F32, float]:
    """The flow [2, H, W] from the first to the last of pictures, each [H, W] float32, and how much of the change it explains
    (`likeness.face_explained`).

    landmarks [478, >= 2] are the mesh on the first picture. Raises as `tvl1` does.
    """
    seconds = [like(two, one) for one, two in pairwise(pictures)]
    chained = reduce(joined, tvl1_batch(np.stack(pictures[:-1]), np.stack(seconds), backend=backend))
    before, after = pictures[0], like(pictures[-1], pictures[0])
    left = tvl1(before, like(read_along(after, chained), before), backend=backend)
    flow = joined(left, chained)
    return flow, face_explained(before, after, flow, landmarks)


def joined(first: F32, second: F32) -> F32:
    """The flow [2, H, W] of going along the first, then along the second, which starts where the first ends."""
    return np.asarray(first + np.stack([read_along(channel, first) for channel in second]), np.float32)
