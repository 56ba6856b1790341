"""What turns of the head leave in the motion of the face's regions, learned as the video goes."""

from __future__ import annotations

import math

import numpy as np

from engine.types import F64

TURN_TERMS = 5  # a constant and the terms of `Crop.turn`
TURN_MEMORY_S = 20.0
TURN_CLIP_PX = 0.3
MOST_ANSWER = 1.5  # pixels a region may answer to one unit of turn: no part of a face lies further before or behind the rest


class Turning:
    """How each region answers to turns of the head: a linear map from (1, `Crop.turn`) learned as the video goes.

    The mesh's depth is only roughly that of the face at hand, so a turn leaves some motion in every region and in the
    bridge of the nose, always in the same proportion. Recursive least squares (Ljung 1999, ch. 11) with a memory of
    TURN_MEMORY_S learns it; clipped errors keep expressions from being learned with it.
    """

    def __init__(self, width: int) -> None:
        self.answer: F64 = np.zeros((TURN_TERMS, width))
        self._covariance: F64 = np.eye(TURN_TERMS)

    def learn(self, regressors: F64, motion: F64, dt: float) -> None:
        """Takes in motion [R] seen at a turn, dt seconds after the last."""
        memory = math.exp(-dt / TURN_MEMORY_S)
        pull = self._covariance @ regressors
        gain = (pull / (memory + float(regressors @ pull)))[:, None]
        error = np.minimum(np.maximum(motion - regressors @ self.answer, -TURN_CLIP_PX), TURN_CLIP_PX)
        answer = self.answer + gain * error
        answer[1:] = np.minimum(np.maximum(answer[1:], -MOST_ANSWER), MOST_ANSWER)
        self.answer = answer
        self._covariance = np.minimum((self._covariance - gain * pull) / memory, 10.0)
