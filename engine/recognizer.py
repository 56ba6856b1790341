"""Onset and apex crops -> which expression, how sure, how strong.

The flow between the two moments, less what is left in it of the head's motion, becomes the network's input (`engine.features`).
Each moment is the mean of the crops within a few hundredths of a second, which halves the camera's noise and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from engine.align import keypoints, take_out_head
from engine.config import RecognizerSettings
from engine.features import five_regions, keypoints_to_map, whole_map
from engine.ops.tvl1 import tvl1
from engine.runtime import load
from engine.types import F32, Crop
from engine.weights import default_weights, load_card

_REACH = 14  # half the side, in pixels, of the square around a keypoint in which intensity is measured


@dataclass(frozen=True)
class Recognition:
    """The answer for one onset and apex; intensity is the mean flow in the region that moves most, in pixels of the crop."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    intensity: float


class Recognizer:
    """A network with its card, ready to name expressions. Raises WeightsError or BackendError where it cannot be loaded."""

    def __init__(self, settings: RecognizerSettings | None = None) -> None:
        self._settings = settings or RecognizerSettings()
        weights = self._settings.weights or default_weights()
        self.card = load_card(weights)
        self.runner = load(weights, backend=self._settings.backend)

    @property
    def model(self) -> str:
        """Name and content hash of the network, as events carry it."""
        return self.card.model_id

    def recognize(self, onset: Sequence[Crop], apex: Sequence[Crop]) -> Recognition:
        """Names the motion from the mean of the onset crops to the mean of the apex crops (at least one each)."""
        flow, points = self.flow(onset, apex)
        composite = five_regions(whole_map(flow), keypoints_to_map(points))
        answer = self.runner(composite[None])[0]
        probabilities = {name: float(p) for name, p in zip(self.card.classes, answer, strict=True)}
        label, confidence = self.card.label(probabilities)
        lowest = self._settings.uncertain_below
        if lowest is not None:
            best = max(probabilities, key=lambda name: probabilities[name])
            label = best if confidence >= lowest else "uncertain"
        return Recognition(label, probabilities, confidence, intensity(flow, points))

    def flow(self, onset: Sequence[Crop], apex: Sequence[Crop]) -> tuple[F32, F32]:
        """The face's own flow [2, 128, 128] from onset to apex, and the five keypoints [5, 2] of the apex, in crop pixels."""
        before, after = _mean(onset), _mean(apex)
        landmarks = np.asarray(np.mean([crop.landmarks for crop in apex], axis=0), np.float32)
        flow = tvl1(before, _like(after, before), backend=self._settings.flow_backend)
        return take_out_head(flow, landmarks), keypoints(landmarks)


def intensity(flow: F32, points: F32) -> float:
    """Mean length of the flow [2, H, W] around the keypoint [5, 2] where it is greatest, in pixels."""
    size = np.hypot(flow[0], flow[1])
    columns, rows = np.clip(np.rint(points).astype(int), 0, np.array(size.shape[::-1]) - 1).T
    around = [
        size[max(r - _REACH, 0) : r + _REACH + 1, max(c - _REACH, 0) : c + _REACH + 1].mean()
        for r, c in zip(rows, columns, strict=True)
    ]
    return float(max(around))


def _mean(crops: Sequence[Crop]) -> F32:
    return np.asarray(np.mean([crop.pixels for crop in crops], axis=0, dtype=np.float32), np.float32)


def _like(picture: F32, model: F32) -> F32:
    """The picture with brightness and contrast of the model, as far as both show the same face: TV-L1 assumes constancy."""
    window = _window(model.shape[0], model.shape[1])
    total = float(window.sum())
    mean_p, mean_m = float((picture * window).sum()) / total, float((model * window).sum()) / total
    var_p = float((window * (picture - mean_p) ** 2).sum()) / total
    var_m = float((window * (model - mean_m) ** 2).sum()) / total
    gain = float(np.clip(np.sqrt(var_m / max(var_p, 1e-6)), 0.5, 2.0))
    return np.asarray(np.clip((picture - mean_p) * gain + mean_m, 0, 255), np.float32)


@lru_cache(maxsize=4)
def _window(rows: int, columns: int) -> F32:
    across, down = cv2.getGaussianKernel(columns, columns / 4), cv2.getGaussianKernel(rows, rows / 4)
    return np.asarray(down @ across.T, np.float32)
