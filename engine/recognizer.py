"""Onset and apex crops -> which expression, how sure, how strong.

The flow between the two moments, less what is left in it of the head's motion, becomes the network's input (`engine.features`).
Each moment is the mean of the crops within a few hundredths of a second, which halves the camera's noise and costs nothing.
Many moments at once go to the GPU as one batch, where there is one (`engine.candidates`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from engine.align import keypoints
from engine.config import RecognizerSettings
from engine.errors import ArrayError, BackendError, WeightsError
from engine.features import CROP_SIDE, EYE_LIFT, SIDE, keypoints_to_map, network_input, whole_map
from engine.mesh import MESH_POINTS
from engine.ops.backend import Backend, Chosen
from engine.ops.tvl1 import chosen_for, cpu, prepare, tvl1
from engine.quantiles import percentile
from engine.residual import take_out_head
from engine.runtime import load
from engine.types import F32, F64, Crop
from engine.weights import load_card, weights_for

_log = logging.getLogger(__name__)

Moment = tuple[Sequence[Crop], Sequence[Crop]]
"""The crops near an onset and those near an apex, at least one each."""

AT_ONCE = 64
"""Moments that go to the GPU together; each takes some 6 MB there."""

ALIKE = 0.8  # where the flow explains less of the change than this, no class is named
SMOOTH_PATCH = 9.0  # product of standard deviations under which a patch is too smooth to compare, grey levels squared
PATCH_SIDE, PATCH_STEP = 24, 16  # pixels of the patches that are compared, and from one to the next
_REACH = 14  # half the side, in pixels, of the square around a keypoint in which intensity is measured


@dataclass(frozen=True)
class Recognition:
    """The answer for one onset and apex; intensity is the mean flow in the region that moves most, flow [2, 128, 128] the
    face's own (u, v) from onset to apex, both in pixels of the crop."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    intensity: float
    flow: F32 = field(compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is known of a moment before the network; given is its input, None where the flow means nothing."""

    flow: F32
    strength: float
    given: F32 | None


class Recognizer:
    """A network with its card, ready to name expressions. Raises WeightsError or BackendError where it cannot be loaded.

    Where the GPU fails the CPU goes on, for good, and a logged warning says so. The flow's machine code is compiled or loaded
    here; prepared=False leaves that to a later call of `prepare`, on any thread, or else to the first moment.
    """

    def __init__(self, settings: RecognizerSettings | None = None, *, prepared: bool = True) -> None:
        self._settings = settings or RecognizerSettings()
        weights = self._settings.weights or weights_for(self._settings.network)
        self.card = load_card(weights)
        self.runner = load(weights, backend=self._settings.backend, cache=self._settings.engine_cache)
        self._flow_backend: Chosen = chosen_for(self._settings.flow_backend)
        if prepared:
            self.prepare()
        if self.runner.input_shape != self.card.input_shape or self.runner.classes != self.card.classes:
            raise WeightsError(f"{weights} does not fit its card: other input shape or classes; export it again")

    def prepare(self) -> None:
        """Compiles or loads the machine code of the flow, and the GPU's. Raises BackendError where that cannot run."""
        prepare(self._flow_backend)
        if self._flow_backend == "gpu" and cpu.refusal() is None:
            prepare("cpu")  # it goes on where the GPU fails, at once

    @property
    def model(self) -> str:
        """Name and content hash of the network, as events carry it."""
        return self.card.model_id

    @property
    def flow_on_gpu(self) -> bool:
        """Whether a GPU computes the flow now; once it is lost, never again."""
        return self._flow_backend == "gpu"

    def recognize(self, onset: Sequence[Crop], apex: Sequence[Crop]) -> Recognition:
        """Names the motion from the mean of the onset crops to the mean of the apex crops (at least one each).

        Nothing is named where the flow does not explain the change, nor where the head moved so far in between that both ends
        stand on different reference pictures: then the mesh alone aligns them, and that is no better than half a pixel.
        Raises ArrayError for crops that are none, BackendError where no backend of the network is left.
        """
        return self.recognize_many([(onset, apex)])[0]

    def recognize_many(self, moments: Sequence[Moment]) -> list[Recognition]:
        """`recognize` for each of many moments, in their order, in one call of the network and as few of the GPU as can be."""
        for onset, apex in moments:
            _check(onset)
            _check(apex)
        return [answer for at in range(0, len(moments), AT_ONCE) for answer in self._named(moments[at : at + AT_ONCE])]

    def _named(self, moments: Sequence[Moment]) -> Iterator[Recognition]:
        seen = self._seen(moments)
        given = [one.given for one in seen if one.given is not None]
        answers = iter(self._run(np.stack(given))) if given else iter(())
        return (self._answer(one, None if one.given is None else next(answers)) for one in seen)

    def _run(self, given: F32) -> F32:
        """The network's answers [N, classes] to inputs [N, 3, H, W]."""
        return self.runner(given)

    def _answer(self, seen: _Seen, answer: F32 | None) -> Recognition:
        classes = self.card.classes
        if answer is None:
            even = 1 / len(classes)
            return Recognition("uncertain", dict.fromkeys(classes, even), even, seen.strength, seen.flow)
        probabilities = {name: float(p) for name, p in zip(classes, answer, strict=True)}
        label, confidence = self.card.label(probabilities, self._settings.uncertain_below)
        return Recognition(label, probabilities, confidence, seen.strength, seen.flow)

    def _seen(self, moments: Sequence[Moment]) -> list[_Seen]:
        if self._flow_backend == "gpu":
            try:
                return self._seen_on_gpu(moments)
            except BackendError as lost:
                self._flow_backend = "cpu" if cpu.refusal() is None else "reference"
                _log.warning("%s; from here on the CPU computes it", lost)
        return [self._seen_alone(*moment) for moment in moments]

    def _seen_alone(self, onset: Sequence[Crop], apex: Sequence[Crop]) -> _Seen:
        flow, points, alike = self.flow(onset, apex)
        known = _means_something(onset, apex, alike)
        given = network_input(self.card.input, whole_map(flow), keypoints_to_map(points)) if known else None
        return _Seen(flow, intensity(flow, points), given)

    def _seen_on_gpu(self, moments: Sequence[Moment]) -> list[_Seen]:
        from engine.candidates import from_arrays

        before, after = (np.stack([_mean(moment[end]) for moment in moments]) for end in (0, 1))
        meshes = np.stack([_landmarks(apex) for _, apex in moments])
        prepared = from_arrays(self.card.input, before, after, meshes)
        return [
            _Seen(flow, intensity(flow, keypoints(mesh)), given if _means_something(*moment, float(alike)) else None)
            for moment, mesh, given, flow, alike in zip(moments, meshes, *prepared, strict=True)
        ]

    def flow(self, onset: Sequence[Crop], apex: Sequence[Crop]) -> tuple[F32, F32, float]:
        """`face_flow` by this recognizer's backend."""
        return face_flow(onset, apex, backend=self._flow_backend)


def _check(crops: Sequence[Crop]) -> None:
    """Raises ArrayError unless there are crops, of the one size, with a mesh."""
    if not crops:
        raise ArrayError("a moment is known by one crop at least; none came")
    for crop in crops:
        if crop.pixels.shape != (CROP_SIDE, CROP_SIDE):
            raise ArrayError(f"a crop is [{CROP_SIDE}, {CROP_SIDE}]; an array of shape {crop.pixels.shape} came")
        if crop.landmarks.shape != (MESH_POINTS, 3) or not np.isfinite(crop.landmarks).all():
            raise ArrayError(f"a crop has a mesh of {MESH_POINTS} finite points, not {crop.landmarks.shape} or points nowhere")


def _means_something(onset: Sequence[Crop], apex: Sequence[Crop], alike: float) -> bool:
    return alike >= ALIKE and onset[-1].anchor == apex[0].anchor


def face_flow(onset: Sequence[Crop], apex: Sequence[Crop], *, backend: Backend = "auto") -> tuple[F32, F32, float]:
    """The face's own flow [2, 128, 128] from onset to apex, the five keypoints [5, 2] of the apex, both in crop pixels, and
    how well the flow explains the change (see `explained`). Training prepares databases with this very function."""
    before, after = _mean(onset), _mean(apex)
    landmarks = _landmarks(apex)
    after = _like(after, before)
    flow = tvl1(before, after, backend=backend)
    return take_out_head(flow, landmarks), keypoints(landmarks), explained(before, after, flow)


def explained(before: F32, after: F32, flow: F32) -> float:
    """How alike both pictures [H, W] are once the flow [2, H, W] is undone: the tenth percentile of patches' correlations.

    1 where every part of one face was only moved; low where a hand came between or the head turned away, so that the flow
    means nothing.
    """
    x, y = _places(before.shape[0], before.shape[1])
    undone = np.asarray(cv2.remap(after, x + flow[0], y + flow[1], cv2.INTER_LINEAR), np.float32)
    (mean_b, square_b), (mean_u, square_u) = _patches(before), _patches(undone)
    (product, _) = _patches(before * undone)
    spread = np.sqrt(np.maximum(square_b - mean_b**2, 0) * np.maximum(square_u - mean_u**2, 0))
    found = np.where(spread > SMOOTH_PATCH, (product - mean_b * mean_u) / np.maximum(spread, SMOOTH_PATCH), 1.0)
    return percentile(found.ravel(), 10)


def _patches(picture: F32) -> tuple[F64, F64]:
    """Mean and mean square of patches of a picture [H, W], overlapping and clear of its border: each [rows, columns]."""
    side, step = PATCH_SIDE, PATCH_STEP
    sums = cv2.integral2(picture[step // 2 : -1, step // 2 : -1], sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    corners = (
        np.asarray(
            one[side::step, side::step]
            - one[:-side:step, side::step]
            - one[side::step, :-side:step]
            + one[:-side:step, :-side:step],
            np.float64,
        )
        for one in sums
    )
    mean, square = (one / side**2 for one in corners)
    return mean, square


def intensity(flow: F32, points: F32) -> float:
    """Mean length of the flow [2, H, W] around the keypoint [5, 2] where it is greatest, in pixels; around the eyes as far
    up as the network's regions reach, so that the brow counts."""
    size = cv2.magnitude(flow[0], flow[1])
    points = points.copy()
    points[:2, 1] -= EYE_LIFT * CROP_SIDE / SIDE
    columns, rows = np.clip(np.rint(points).astype(int), 0, np.array(size.shape[::-1]) - 1).T
    around = [
        size[max(r - _REACH, 0) : r + _REACH + 1, max(c - _REACH, 0) : c + _REACH + 1].mean()
        for r, c in zip(rows, columns, strict=True)
    ]
    return float(max(around))


def _mean(crops: Sequence[Crop]) -> F32:
    total = crops[0].pixels.astype(np.float32)
    for crop in crops[1:]:
        total += crop.pixels
    total /= len(crops)
    return total


def _landmarks(crops: Sequence[Crop]) -> F32:
    """The mean mesh [478, 3] of crops."""
    return np.asarray(np.mean([crop.landmarks for crop in crops], axis=0), np.float32)


def _like(picture: F32, model: F32) -> F32:
    """The picture with brightness and contrast of the model, as far as both show the same face: TV-L1 assumes constancy."""
    window = face_window(model.shape[0], model.shape[1])
    total = float(window.sum())
    mean_p, mean_m = float((picture * window).sum()) / total, float((model * window).sum()) / total
    var_p = float((window * (picture - mean_p) ** 2).sum()) / total
    var_m = float((window * (model - mean_m) ** 2).sum()) / total
    gain = float(np.clip(np.sqrt(var_m / max(var_p, 1e-6)), 0.5, 2.0))
    return np.asarray(np.clip((picture - mean_p) * gain + mean_m, 0, 255), np.float32)


@lru_cache(maxsize=4)
def _places(rows: int, columns: int) -> tuple[F32, F32]:
    """Each pixel's x and y."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return x, y


@lru_cache(maxsize=4)
def face_window(rows: int, columns: int) -> F32:
    """How much each pixel [rows, columns] of a crop counts where brightness is compared: a bell over the middle of the face."""
    across, down = cv2.getGaussianKernel(columns, columns / 4), cv2.getGaussianKernel(rows, rows / 4)
    return np.asarray(down @ across.T, np.float32)
