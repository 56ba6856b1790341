"""Onset and apex crops -> which expression, how sure, how strong.

The flow between the two moments, less what is left in it of the head's motion, becomes the network's input
(`engine.recognition.flowmap`). What facial actions the mesh saw is added to the answer for a large motion
(`engine.recognition.actions`). Each moment is the mean of the crops within a few hundredths of a second, which halves the
camera's noise and costs nothing. Many moments at once go to the GPU as one batch, where there is one
(`engine.recognition.flowmap_gpu`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from engine.config import RecognizerSettings
from engine.errors import ArrayError, BackendError, WeightsError
from engine.mesh import MESH_POINTS
from engine.ops.backend import Backend, Chosen
from engine.ops.tvl1 import chosen_for, cpu, prepare, tvl1
from engine.recognition.actions import CLASSES, Actions, by_actions, fused, seen_actions
from engine.recognition.chain import chained_flow, spread_out
from engine.recognition.flowmap import CROP_SIDE, EYE_LIFT, SIDE, keypoints_to_map, network_input, whole_map
from engine.recognition.likeness import ALIKE, explained, like
from engine.recognition.residual import take_out_head
from engine.registration.align import keypoints
from engine.runtime import load
from engine.types import F32, Crop
from engine.weights import load_card, weights_for

_log = logging.getLogger(__name__)


class Moment(NamedTuple):
    """The crops near an onset and those near an apex, at least one each; between are the moments in between, one crop each,
    the oldest first, as far as they are known."""

    onset: Sequence[Crop]
    apex: Sequence[Crop]
    between: Sequence[Crop] = ()


AT_ONCE = 64
"""Moments that go to the GPU together; each takes some 6 MB there."""

MOST_TURNED = 1 / 3
"""Units of turn (`Crop.turn`) per pixel of the largest regional motion from which on a change is called the head's: a turn
leaves 1.5 px a unit at most (`engine.spotting.head_motion_regression`), and an expression is more than twice that."""

HEADS_OWN = ("turned away", "changed too much")
"""Reasons for which the flow names nothing, but clear facial actions still may; none is clear behind a hand."""

UNREGISTERED_PX = 2.0  # a median disagreement of the head's patches of so much: they lie on something else

_REACH = 14  # half the side, in pixels, of the square around a keypoint in which intensity is measured


@dataclass(frozen=True)
class Recognition:
    """The answer for one onset and apex; intensity is the mean flow in the region that moves most, flow [2, 128, 128] the
    face's own (u, v) from onset to apex, both in pixels of the crop. why says in a few words why the label is "uncertain"."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    intensity: float
    flow: F32 = field(compare=False, repr=False)
    why: str | None = None


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is known of a moment before the network; given is its input, None where the flow means nothing, and why."""

    flow: F32
    strength: float
    given: F32 | None
    why: str | None = None


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

    def recognize(self, onset: Sequence[Crop], apex: Sequence[Crop], between: Sequence[Crop] = ()) -> Recognition:
        """Names the motion from the mean of the onset crops to the mean of the apex crops (at least one each).

        Where the direct flow does not explain the change it is chained over some of the moments in between
        (`engine.recognition.chain`). Nothing is named by the flow where that does not explain it either; nor where the head
        turned so far that the change may be its own, if the flow is chained or both ends stand on different reference
        pictures. Facial actions may name it then. Raises ArrayError for crops that are none, BackendError where no backend of
        the network is left.
        """
        return self.recognize_many([Moment(onset, apex, between)])[0]

    def recognize_many(self, moments: Sequence[Moment]) -> list[Recognition]:
        """`recognize` for each of many moments, in their order, in one call of the network and as few of the GPU as can be."""
        for moment in moments:
            _check(moment.onset)
            _check(moment.apex)
            if moment.between:
                _check(moment.between)
        return [answer for at in range(0, len(moments), AT_ONCE) for answer in self._named(moments[at : at + AT_ONCE])]

    def _named(self, moments: Sequence[Moment]) -> Iterator[Recognition]:
        seen = self._seen(moments)
        given = [one.given for one in seen if one.given is not None]
        answers = iter(self._run(np.stack(given))) if given else iter(())
        return (
            self._answer(one, moment, None if one.given is None else next(answers))
            for one, moment in zip(seen, moments, strict=True)
        )

    def _run(self, given: F32) -> F32:
        """The network's answers [N, classes] to inputs [N, 3, H, W]."""
        return self.runner(given)

    def _answer(self, seen: _Seen, moment: Moment, answer: F32 | None) -> Recognition:
        classes, below = self.card.classes, self._settings.uncertain_below
        actions = seen_actions(moment.onset, moment.apex)
        if answer is None:
            return self._unnamed(seen, actions)
        named = fused({name: float(p) for name, p in zip(classes, answer, strict=True)}, seen.strength, actions)
        label, confidence = self.card.label(named.drawn, below)
        why = None
        if label == "uncertain":
            unlike = self.card.label(named.probabilities, below)[0] != "uncertain"
            why = "unlike known expressions" if unlike else "not sure"
        return Recognition(label, named.drawn, confidence, seen.strength, seen.flow, why)

    def _unnamed(self, seen: _Seen, actions: Actions | None) -> Recognition:
        """The answer where the flow names nothing: what the actions say, if they are clear, else uncertain."""
        classes = self.card.classes
        if actions is not None and seen.why in HEADS_OWN and set(classes) == set(CLASSES):
            said = by_actions(actions).drawn
            label, confidence = self.card.label(said, self._settings.uncertain_below)
            if label != "uncertain":
                return Recognition(label, {name: said[name] for name in classes}, confidence, seen.strength, seen.flow)
        even = 1 / len(classes)
        return Recognition("uncertain", dict.fromkeys(classes, even), even, seen.strength, seen.flow, seen.why)

    def _seen(self, moments: Sequence[Moment]) -> list[_Seen]:
        if self._flow_backend == "gpu":
            try:
                return self._seen_on_gpu(moments)
            except BackendError as lost:
                self._flow_backend = "cpu" if cpu.refusal() is None else "reference"
                _log.warning("%s; from here on the CPU computes it", lost)
        return [self._seen_alone(moment) for moment in moments]

    def _seen_alone(self, moment: Moment) -> _Seen:
        flow, points, alike = self.flow(moment.onset, moment.apex)
        if alike < ALIKE:
            return self._seen_in_steps(moment)
        return self._judged(flow, points, _why_not_direct(moment))

    def _seen_in_steps(self, moment: Moment) -> _Seen:
        """A moment whose direct flow means nothing, by way of the moments in between."""
        links = [moment.between[k].pixels.astype(np.float32) for k in spread_out(len(moment.between))]
        pictures = [_mean(moment.onset), *links, _mean(moment.apex)]
        flow, alike = chained_flow(pictures, _landmarks(moment.onset), backend=self._flow_backend)
        landmarks = _landmarks(moment.apex)
        return self._judged(take_out_head(flow, landmarks), keypoints(landmarks), _why_not_chained(moment, alike))

    def _judged(self, flow: F32, points: F32, why: str | None) -> _Seen:
        """What the network is given of a face's own flow, unless there is a reason why nothing may be named."""
        given = None if why else network_input(self.card.input, whole_map(flow), keypoints_to_map(points))
        return _Seen(flow, intensity(flow, points), given, why)

    def _seen_on_gpu(self, moments: Sequence[Moment]) -> list[_Seen]:
        from engine.recognition.flowmap_gpu import from_arrays

        before, after = (np.stack([_mean(moment[end]) for moment in moments]) for end in (0, 1))
        meshes = np.stack([_landmarks(moment.apex) for moment in moments])
        seen = []
        for moment, mesh, given, flow, alike in zip(
            moments, meshes, *from_arrays(self.card.input, before, after, meshes), strict=True
        ):
            why = _why_not_direct(moment)
            direct = _Seen(flow, intensity(flow, keypoints(mesh)), None if why else given, why)
            seen.append(direct if alike >= ALIKE else self._seen_in_steps(moment))
        return seen

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


def _why_not_direct(moment: Moment) -> str | None:
    """Why a change is not named that its direct flow explains; None where nothing speaks against it."""
    one_reference = moment.onset[-1].anchor == moment.apex[0].anchor
    return None if one_reference or not _turned(moment) else "turned away"


def _why_not_chained(moment: Moment, alike: float) -> str | None:
    """Why a change is not named of which a chained flow explains so much; None where nothing speaks against it."""
    if _turned(moment):
        return "turned away"
    if alike >= ALIKE:
        return None
    residual = max(crop.residual for end in moment for crop in end)
    return "covered" if residual > UNREGISTERED_PX else "changed too much"


def _turned(moment: Moment) -> bool:
    """Whether the head turned so far that the change may be its own."""
    first, last = moment.onset[-1], moment.apex[0]
    turn, motion = last.turn - first.turn, last.motion - first.motion
    return float(np.hypot(turn[0], turn[1])) > MOST_TURNED * float(np.hypot(motion[:, 0], motion[:, 1]).max())


def face_flow(onset: Sequence[Crop], apex: Sequence[Crop], *, backend: Backend = "auto") -> tuple[F32, F32, float]:
    """The face's own flow [2, 128, 128] from onset to apex, the five keypoints [5, 2] of the apex, both in crop pixels, and
    how well the flow explains the change (see `likeness.explained`). Training prepares databases with this very function."""
    before, after = _mean(onset), _mean(apex)
    landmarks = _landmarks(apex)
    after = like(after, before)
    flow = tvl1(before, after, backend=backend)
    return take_out_head(flow, landmarks), keypoints(landmarks), explained(before, after, flow)


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
