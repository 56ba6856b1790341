"""Onset and apex crops -> which expression, how sure, how strong.

The flow between the two moments, less what is left in it of the head's motion, becomes the network's input: on the CPU one
moment at a time (`engine.recognition.flowmap`), on a GPU many at once (`engine.recognition.flowmap_gpu`). For a large motion
the facial actions that the mesh saw are added to the answer (`engine.recognition.actions`). Each moment is the mean of the
crops within a few hundredths of a second, which halves the camera's noise and costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.activity.watch import Hindrance
from engine.config import RecognizerSettings
from engine.errors import ArrayError, BackendError, WeightsError
from engine.geometry import CROP_SIDE, keypoints, keypoints_to_map
from engine.mesh import MESH_POINTS
from engine.ops.backend import Chosen
from engine.ops.tvl1 import chosen_for, cpu, prepare
from engine.recognition.actions import CLASSES, Actions, by_actions, facial_actions, fuse
from engine.recognition.flowmap import (
    chained_flow,
    face_flow,
    intensity,
    mean_landmarks,
    mean_picture,
    network_input,
    spread_out,
    whole_map,
)
from engine.recognition.likeness import ALIKE
from engine.recognition.residual import take_out_head
from engine.runtime import load
from engine.types import F32, Crop
from engine.weights import load_card, weights_for

if TYPE_CHECKING:
    from engine.recognition.flowmap_gpu import FlowMaps

_log = logging.getLogger(__name__)


class Moment(NamedTuple):
    """The crops near an onset and those near an apex, at least one each; between are the moments in between, one crop each,
    the oldest first, as far as they are known; hindrance is why the face is not seen well in some of them."""

    onset: Sequence[Crop]
    apex: Sequence[Crop]
    between: Sequence[Crop] = ()
    hindrance: Hindrance | None = None


AT_ONCE = 64
"""Moments that go to the GPU together; each takes some 6 MB there."""

MAX_TURNED = 1 / 3
"""Units of turn (`Crop.turn`) per pixel of the largest regional motion from which on a change is called the head's: a turn
leaves 1.5 px a unit at most (`engine.spotting.motion.HeadMotionRegression`), and an expression is more than twice that."""

HEADS_OWN = ("turned away", "changed too much")
"""Reasons for which the flow names nothing, but clear facial actions still may; none is clear behind a hand."""

SURE_WITHOUT_FLOW = 0.55
"""Least probability of a class that facial actions name alone: the head's turn changes blendshapes, too."""

UNREGISTERED_PX = 2.0  # a median disagreement of the head's patches of so much: they lie on something else


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
class _Measured:
    """A moment before it goes to the network; input is None where the flow must not be named, and why says the reason; answer
    is the network's where the GPU gave that, too."""

    flow: F32
    intensity: float
    input: F32 | None
    why: str | None = None
    answer: F32 | None = None


class Recognizer:
    """A network with its card, ready to name expressions. Raises WeightsError or BackendError where it cannot be loaded.

    Where the GPU fails the CPU takes over, permanently, which is logged. The flow's machine code is compiled or loaded
    here; prepared=False leaves that to a later call of `prepare`, on any thread, or else to the first moment. `model` is the
    network's name and content hash, as events carry it.
    """

    def __init__(self, settings: RecognizerSettings | None = None, *, prepared: bool = True) -> None:
        self._settings = settings or RecognizerSettings()
        weights = self._settings.weights or weights_for(self._settings.network)
        self.card = load_card(weights)
        self.model = self.card.model_id
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
            prepare("cpu")  # it takes over at once where the GPU fails
        if self._flow_backend == "gpu":
            self._prepare_maps()

    def _prepare_maps(self) -> None:
        """Has the GPU's kernels compiled or loaded that continue from the flow to the network's input."""
        blank, mesh = np.zeros((1, CROP_SIDE, CROP_SIDE), np.float32), np.zeros((1, MESH_POINTS, 3), np.float32)
        try:
            self._maps_on_gpu(blank, blank, mesh)
        except BackendError as error:
            self._leave_gpu(error)

    @property
    def flow_on_gpu(self) -> bool:
        """Whether a GPU computes the flow now; once it is lost, never again."""
        return self._flow_backend == "gpu"

    def recognize(
        self,
        onset: Sequence[Crop],
        apex: Sequence[Crop],
        between: Sequence[Crop] = (),
        hindrance: Hindrance | None = None,
    ) -> Recognition:
        """Names the motion from the mean of the onset crops to the mean of the apex crops (at least one each).

        Where the direct flow does not explain the change it is chained over some of the moments in between
        (`flowmap.chained_flow`). Nothing is named by the flow where that does not explain it either; nor where the head turned
        so far that the change may be its own, if the flow is chained or both ends stand on different reference pictures; nor
        where there is a hindrance. Facial actions may name it then, unless the face is covered. Raises ArrayError for crops
        that are none, BackendError where no backend of the network is left.
        """
        return self.recognize_many([Moment(onset, apex, between, hindrance)])[0]

    def recognize_many(self, moments: Sequence[Moment]) -> list[Recognition]:
        """`recognize` for each of many moments, in their order, in one call of the network and as few of the GPU as can be."""
        for moment in moments:
            _check(moment)
        batches = (moments[at : at + AT_ONCE] for at in range(0, len(moments), AT_ONCE))
        return [answer for batch in batches for answer in self._recognize_batch(batch)]

    def _recognize_batch(self, moments: Sequence[Moment]) -> Iterator[Recognition]:
        measured = self._measure(moments)
        inputs = [one.input for one in measured if one.input is not None and one.answer is None]
        answers = iter(self._run(np.stack(inputs))) if inputs else iter(())
        for one, moment in zip(measured, moments, strict=True):
            answer = next(answers) if one.input is not None and one.answer is None else one.answer
            yield self._answer(one, moment, answer)

    def _run(self, inputs: F32) -> F32:
        """The network's answers [N, classes] to inputs [N, 3, H, W]."""
        return self.runner(inputs)

    def _answer(self, measured: _Measured, moment: Moment, answer: F32 | None) -> Recognition:
        classes, below = self.card.classes, self._settings.uncertain_below
        actions = facial_actions(moment.onset, moment.apex)
        if answer is None:
            return self._answer_without_flow(measured, actions)
        fused = fuse({name: float(p) for name, p in zip(classes, answer, strict=True)}, measured.intensity, actions)
        label, confidence = self.card.label(fused.shrunk, below)
        why = None
        if label == "uncertain":
            unlike = self.card.label(fused.probabilities, below)[0] != "uncertain"
            why = "unlike known expressions" if unlike else "not sure"
        return Recognition(label, fused.shrunk, confidence, measured.intensity, measured.flow, why)

    def _answer_without_flow(self, measured: _Measured, actions: Actions | None) -> Recognition:
        """By facial actions alone, if they are clear, else uncertain."""
        classes = self.card.classes
        if actions is not None and measured.why in HEADS_OWN and set(classes) == set(CLASSES):
            probabilities = by_actions(actions).shrunk
            label, confidence = self.card.label(probabilities, self._settings.uncertain_below)
            if label != "uncertain" and confidence >= SURE_WITHOUT_FLOW:
                ordered = {name: probabilities[name] for name in classes}
                return Recognition(label, ordered, confidence, measured.intensity, measured.flow)
        even = 1 / len(classes)
        return Recognition("uncertain", dict.fromkeys(classes, even), even, measured.intensity, measured.flow, measured.why)

    def _measure(self, moments: Sequence[Moment]) -> list[_Measured]:
        if self._flow_backend == "gpu":
            try:
                return self._measure_on_gpu(moments)
            except BackendError as error:
                self._leave_gpu(error)
        return [self._measure_on_cpu(moment) for moment in moments]

    def _leave_gpu(self, error: BackendError) -> None:
        self._flow_backend = "cpu" if cpu.refusal() is None else "reference"
        _log.warning("%s; from here on the CPU computes it", error)

    def _measure_on_cpu(self, moment: Moment) -> _Measured:
        flow, points, alike = face_flow(moment.onset, moment.apex, backend=self._flow_backend)
        if alike < ALIKE:
            return self._measure_in_steps(moment)
        return self._measured(flow, points, _reason_against_direct(moment))

    def _measure_in_steps(self, moment: Moment) -> _Measured:
        """By the flow chained over the moments in between, where the direct flow does not explain the change."""
        links = [moment.between[k].pixels.astype(np.float32) for k in spread_out(len(moment.between))]
        pictures = [mean_picture(moment.onset), *links, mean_picture(moment.apex)]
        flow, alike = chained_flow(pictures, mean_landmarks(moment.onset), backend=self._flow_backend)
        landmarks = mean_landmarks(moment.apex)
        return self._measured(take_out_head(flow, landmarks), keypoints(landmarks), _reason_against_chained(moment, alike))

    def _measured(self, flow: F32, points: F32, why: str | None) -> _Measured:
        """A face's own flow with the network's input, which is left out where there is a reason why nothing may be fused."""
        maps = None if why else network_input(self.card.input, whole_map(flow), keypoints_to_map(points))
        return _Measured(flow, intensity(flow, points), maps, why)

    def _measure_on_gpu(self, moments: Sequence[Moment]) -> list[_Measured]:
        before = np.stack([mean_picture(moment.onset) for moment in moments])
        after = np.stack([mean_picture(moment.apex) for moment in moments])
        meshes = np.stack([mean_landmarks(moment.apex) for moment in moments])
        *found, answers = self._maps_on_gpu(before, after, meshes)
        answers = [None] * len(moments) if answers is None else answers
        measured = []
        for moment, mesh, maps, flow, alike, answer in zip(moments, meshes, *found, answers, strict=True):
            why = _reason_against_direct(moment)
            given = (None, why, None) if why else (maps, None, answer)
            direct = _Measured(flow, intensity(flow, keypoints(mesh)), *given)
            measured.append(direct if alike >= ALIKE else self._measure_in_steps(moment))
        return measured

    def _maps_on_gpu(self, before: F32, after: F32, meshes: F32) -> FlowMaps:
        """What the GPU makes of moments, with the network's answers where that takes maps on the GPU."""
        from engine.recognition.flowmap_gpu import from_arrays

        network = self.runner.on_device
        if network is not None:
            try:
                found = from_arrays(self.card.input, before, after, meshes, network)
            except BackendError as error:
                _log.debug("%s; without the network on the GPU", error)  # which of the two failed shows below
            else:
                if np.isfinite(found.probabilities).all():
                    return found
        return from_arrays(self.card.input, before, after, meshes)


def _check(moment: Moment) -> None:
    """Raises ArrayError unless there are crops at both ends, and all are of the one size, with a mesh."""
    if not moment.onset or not moment.apex:
        raise ArrayError("a moment needs at least one crop; none came")
    for crop in (*moment.onset, *moment.apex, *moment.between):
        if crop.pixels.shape != (CROP_SIDE, CROP_SIDE):
            raise ArrayError(f"a crop is [{CROP_SIDE}, {CROP_SIDE}]; an array of shape {crop.pixels.shape} came")
        if crop.landmarks.shape != (MESH_POINTS, 3) or not np.isfinite(crop.landmarks).all():
            raise ArrayError(f"a crop has a mesh of {MESH_POINTS} finite points, not {crop.landmarks.shape} or others")


def _reason_against_direct(moment: Moment) -> str | None:
    """Why a change that its direct flow explains is not named; None where it may be."""
    if moment.hindrance is not None:
        return moment.hindrance
    one_reference = moment.onset[-1].anchor == moment.apex[0].anchor
    return None if one_reference or not _turned(moment) else "turned away"


def _reason_against_chained(moment: Moment, alike: float) -> str | None:
    """Why a change of which a chained flow explains so much (`likeness.face_explained`) is not named; None where it may be."""
    if moment.hindrance is not None:
        return moment.hindrance
    if _turned(moment):
        return "turned away"
    if alike >= ALIKE:
        return None
    residual = max(crop.residual for crop in (*moment.onset, *moment.apex, *moment.between))
    return "covered" if residual > UNREGISTERED_PX else "changed too much"


def _turned(moment: Moment) -> bool:
    """Whether the head turned so far that the change may be its own."""
    first, last = moment.onset[-1], moment.apex[0]
    turn, motion = last.turn - first.turn, last.motion - first.motion
    return float(np.hypot(turn[0], turn[1])) > MAX_TURNED * float(np.hypot(motion[:, 0], motion[:, 1]).max())
