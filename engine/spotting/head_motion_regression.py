"""What turns of the head leave in the motion of the face's regions, estimated online."""

from __future__ import annotations

import math

import numpy as np

from engine.types import F64

TURN_TERMS = 5  # a constant and the terms of `Crop.turn`
MEMORY_S = 20.0
MAX_ERROR_PX = 0.3
MAX_RESPONSE = 1.5  # pixels a region may move for one unit of turn: no part of a face lies further before or behind the rest


class HeadMotionRegression:
    """Linear map from (1, `Crop.turn`) to the motion of each region: `coefficients` [TURN_TERMS, width].

    The mesh's depth is only roughly that of the face at hand, so a turn leaves some motion in every region and in the
    bridge of the nose, always in the same proportion. Recursive least squares (Ljung 1999, ch. 11) with a memory of
    MEMORY_S estimates it; errors are clipped so that expressions have little influence.
    """

    def __init__(self, width: int) -> None:
        self.coefficients: F64 = np.zeros((TURN_TERMS, width))
        self._covariance: F64 = np.eye(TURN_TERMS)

    def update(self, regressors: F64, motion: F64, dt: float) -> None:
        """Takes in motion [width] at regressors [TURN_TERMS], dt seconds after the last."""
        memory = math.exp(-dt / MEMORY_S)
        projected = self._covariance @ regressors
        gain = (projected / (memory + float(regressors @ projected)))[:, None]
        error = np.minimum(np.maximum(motion - regressors @ self.coefficients, -MAX_ERROR_PX), MAX_ERROR_PX)
        coefficients = self.coefficients + gain * error
        coefficients[1:] = np.minimum(np.maximum(coefficients[1:], -MAX_RESPONSE), MAX_RESPONSE)
        self.coefficients = coefficients
        self._covariance = np.minimum((self._covariance - gain * projected) / memory, 10.0)
