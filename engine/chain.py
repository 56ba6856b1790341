"""The flow of a change too large for one step: from moment to moment, joined, and refined once from end to end.

TV-L1 finds motions of a few pixels. A mouth that opens wide or brows raised as far as they go move 10 to 25 px of the crop
within a third of a second, but 2 or 3 from frame to frame. Pictures registered to different references may be joined too:
what lies between the references is a motion of the head, and is taken out with it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from engine.likeness import explained, face_explained, like, read_along
from engine.ops.backend import Backend
from engine.ops.tvl1 import tvl1, tvl1_batch
from engine.types import F32

STEPS = 8
"""A chain has no more steps: twice as many explain no more of the change, half as many less of a long one."""


def spread_out(moments: int) -> list[int]:
    """Which of so many moments between two ends become links of the chain: STEPS - 1 of them at most, evenly."""
    links = min(moments, STEPS - 1)
    return [round((k + 1) * (moments + 1) / (links + 1)) - 1 for k in range(links)]


def chained_flow(pictures: Sequence[F32], landmarks: F32, *, backend: Backend = "auto") -> tuple[F32, float]:
    """The flow [2, H, W] from the first to the last of pictures, each [H, W] float32, and how much of the change it explains.

    Of the direct flow and the chained one that which explains more, with or without what lips and lids open and close
    (`likeness.explained`, `face_explained`). landmarks [478, >= 2] are the mesh on the first picture. Raises as `tvl1` does.
    """
    before, after = pictures[0], like(pictures[-1], pictures[0])
    pairs = [(before, after), *((one, like(two, one)) for one, two in pairwise(pictures))]
    direct, *steps = tvl1_batch(*(np.stack(side) for side in zip(*pairs, strict=True)), backend=backend)
    found = [direct]
    if len(steps) > 1:
        total = steps[0]
        for step in steps[1:]:
            total = joined(total, step)
        left = tvl1(before, like(read_along(after, total), before), backend=backend)
        found.append(joined(left, total))
    alike = [max(explained(before, after, flow), face_explained(before, after, flow, landmarks)) for flow in found]
    best = int(np.argmax(alike))
    return found[best], alike[best]


def joined(first: F32, second: F32) -> F32:
    """The flow [2, H, W] of going along the first, then along the second, which starts where the first ends."""
    return np.asarray(first + np.stack([read_along(channel, first) for channel in second]), np.float32)
