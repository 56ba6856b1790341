from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from apexstream.clips.spec import LABEL_OF, Action
from engine.activity.watch import Hindrance
from engine.config import RecognizerSettings
from engine.errors import ArrayError, BackendError, WeightsError
from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, INPUTS, keypoints_to_crop, keypoints_to_map
from engine.models import ARCHITECTURES
from engine.recognition import flowmap_gpu
from engine.recognition import recognizer as module
from engine.recognition.flowmap import face_flow, network_input, whole_map
from engine.recognition.likeness import ALIKE
from engine.recognition.recognizer import AT_ONCE, Moment, Recognition, Recognizer
from engine.runtime.eager import EagerRunner
from engine.types import Crop
from engine.weights import default_weights, sha256_of, weights_for
from tests.faces import bump, laugh, moved, rise
from tests.pretended_gpu import Flows, pretend_gpu

POINTS = keypoints_to_crop(CANONICAL_KEYPOINTS)
CLEAR: tuple[Action, ...] = ("smile", "lip_depress", "nose_wrinkle", "brow_lower")
"""Actions that the network distinguishes on both photographs, whatever the random details of the renderer."""


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


@pytest.fixture(scope="module")
def rest() -> Crop:
    return rise("smile")[1][0]


def test_no_motion_is_no_flow(recognizer: Recognizer, rest: Crop) -> None:
    flow, _, _ = face_flow([rest], [rest])
    assert np.hypot(*flow).max() < 0.05
    assert recognizer.recognize([rest], [rest]).intensity < 0.02


@pytest.mark.parametrize("name", ["hopper", "astronaut"])
@pytest.mark.parametrize("action", CLEAR)
def test_rendered_expressions_get_their_class(recognizer: Recognizer, action: Action, name: str) -> None:
    _, crops, _ = rise(action, name)
    answer = recognizer.recognize(crops[:2], crops[-1:])
    assert answer.label == LABEL_OF[action], answer


@pytest.mark.parametrize("action", CLEAR)
@pytest.mark.parametrize(("gain", "lift"), [(0.85, 12), (1.1, -15), (1.0, 25)])
def test_light_that_changes_between_onset_and_apex_does_not_matter(
    recognizer: Recognizer, action: Action, gain: float, lift: float
) -> None:
    _, crops, _ = rise(action)
    lit = replace(crops[-1], pixels=np.clip(crops[-1].pixels * gain + lift, 0, 255).astype(np.uint8))
    plain, other = recognizer.recognize(crops[:2], crops[-1:]), recognizer.recognize(crops[:2], [lit])
    assert other.label == plain.label
    assert other.intensity == pytest.approx(plain.intensity, abs=0.1)
    for name, probability in plain.probabilities.items():
        assert other.probabilities[name] == pytest.approx(probability, abs=0.1)  # measured: 0.03


@pytest.mark.parametrize("action", CLEAR)
def test_intensity_grows_with_the_motion(recognizer: Recognizer, action: Action) -> None:
    """A region's mean is less than its peak, by a factor that belongs to the action and not to the amplitude."""
    weak, strong = (
        recognizer.recognize(crops[:2], crops[-1:]).intensity for _, crops, _ in (rise(action), rise(action, px=4.0))
    )
    assert 0.1 * 2 < weak < 2
    assert 1.7 < strong / weak < 2.4


def sane(answer: Recognition, classes: tuple[str, ...]) -> None:
    assert set(answer.probabilities) == set(classes)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert answer.confidence == pytest.approx(max(answer.probabilities.values()), abs=1e-6)


def test_below_the_stated_confidence_it_says_uncertain(rest: Crop) -> None:
    apex = moved(rest, bump(*POINTS[3], -1.0, -1.0))
    for lowest, uncertain in ((0.0, False), (1.0, True)):
        one = Recognizer(RecognizerSettings(uncertain_below=lowest))
        answer = one.recognize([rest], [apex])
        sane(answer, tuple(one.card.classes))
        assert (answer.label == "uncertain") is uncertain
        assert answer.why == ("not sure" if uncertain else None)
        if not uncertain:
            assert answer.label == max(answer.probabilities, key=lambda name: answer.probabilities[name])


def test_the_same_crops_get_the_same_answer(recognizer: Recognizer) -> None:
    _, crops, _ = rise("smile")
    assert recognizer.recognize(crops[:2], crops[-1:]) == Recognizer().recognize(crops[:2], crops[-1:])


def test_the_model_is_named_by_its_content(recognizer: Recognizer) -> None:
    name, _, digest = recognizer.model.partition("@sha256:")
    assert name == "ahmsa-3db" and len(digest) >= 12 and int(digest, 16) >= 0


def test_a_network_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.onnx"):
        Recognizer(RecognizerSettings(weights=tmp_path / "none.onnx"))


def channel_means(path: Path, kind: str, **changes: Any) -> Path:
    """A network of another input: the probabilities are the softmax of the channels' means. With its card."""
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", *INPUTS[kind]])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    nodes = [
        helper.make_node("ReduceMean", ["maps", "axes"], ["means"], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "means", [maps], [out], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = json.loads(default_weights().with_suffix(".json").read_text())
    helper.set_model_props(model, {"apexstream": json.dumps({"classes": card["classes"]})})
    path.write_bytes(model.SerializeToString())
    card = {**card, "input": kind, "input_shape": INPUTS[kind], "sha256": sha256_of(path), **changes}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.mark.parametrize("kind", INPUTS)
def test_a_network_is_fed_with_what_its_card_says(tmp_path: Path, rest: Crop, kind: str) -> None:
    one = Recognizer(RecognizerSettings(weights=channel_means(tmp_path / "net.onnx", kind), uncertain_below=0))
    crops = [rest], [moved(rest, bump(*POINTS[3], -1.0, -1.0))]
    flow, points, _ = face_flow(*crops)
    means = network_input(kind, whole_map(flow), keypoints_to_map(points)).mean((1, 2), dtype=np.float64)
    expected = np.exp(means) / np.exp(means).sum()
    assert list(one.recognize(*crops).probabilities.values()) == pytest.approx(list(expected), abs=1e-5)


def test_a_card_of_other_columns_than_the_network_is_refused(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "net.onnx", "whole", classes=["no", "yes", "maybe"])
    with pytest.raises(WeightsError, match="does not fit its card"):
        Recognizer(RecognizerSettings(weights=path))


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_an_architecture_is_taken_from_those_shipped(network: str) -> None:
    """Or, where none is, the same sentence comes that says how to make one."""
    try:
        expected = weights_for(network)
    except WeightsError as error:
        with pytest.raises(WeightsError, match=f"^{re.escape(str(error))}$"):
            Recognizer(RecognizerSettings(network=network))
    else:
        assert Recognizer(RecognizerSettings(network=network)).card.sha256 == sha256_of(expected)


def test_what_stands_on_two_reference_pictures_is_named_like_on_one(recognizer: Recognizer) -> None:
    for action in CLEAR:
        _, crops, _ = rise(action)
        other = replace(crops[-1], anchor=crops[-1].anchor + 1)
        assert recognizer.recognize(crops[:2], [other]) == recognizer.recognize(crops[:2], crops[-1:])


@pytest.mark.parametrize("px", [6.0, 12.0, 18.0, 24.0])
def test_a_laugh_is_named_however_large(recognizer: Recognizer, px: float) -> None:
    crops, _ = laugh(px)
    answer = recognizer.recognize(crops[:1], crops[-1:], crops[1:-1])
    assert (answer.label, answer.why) == ("positive", None), answer


def test_a_change_too_large_for_one_step_is_measured_in_several(recognizer: Recognizer) -> None:
    crops, _ = laugh(24.0)
    assert face_flow(crops[:1], crops[-1:])[2] < ALIKE
    small = recognizer.recognize(crops[:1], crops[2:3]).intensity
    whole = recognizer.recognize(crops[:1], crops[-1:], crops[1:-1]).intensity
    assert whole == pytest.approx(9 / 2 * small, rel=0.1)


def test_what_is_named_in_one_step_takes_no_other(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "chained_flow", lambda *_, **__: pytest.fail("the direct flow explains it"))
    _, crops, _ = rise("smile")
    assert recognizer.recognize(crops[:2], crops[-1:], crops[2:-1]) == recognizer.recognize(crops[:2], crops[-1:])


def covered(crop: Crop, residual: float) -> Crop:
    """The crop with something before half of the face, on which the head's patches disagree by `residual` pixels."""
    pixels = crop.pixels.copy()
    pixels[60:] = np.random.default_rng(1).integers(0, 256, (68, CROP_SIDE), np.uint8)
    return replace(crop, pixels=pixels, residual=residual)


def test_what_is_not_named_says_why(recognizer: Recognizer, rest: Crop) -> None:
    far = np.zeros_like(rest.motion)
    far[0] = 9.0
    hidden = replace(covered(rest, 3.0), motion=rest.motion + far)
    grimace = replace(covered(rest, 0.5), motion=rest.motion + far)
    turned = replace(rest, anchor=rest.anchor + 1, turn=rest.turn + np.float32([4, 0, 0, 0]))
    for apex, why in ((hidden, "covered"), (grimace, "changed too much"), (turned, "turned away")):
        answer = recognizer.recognize([rest], [apex])
        sane(answer, tuple(recognizer.card.classes))
        assert (answer.label, answer.why) == ("uncertain", why)
        assert set(answer.probabilities.values()) == {1 / len(recognizer.card.classes)}
    passing = recognizer.recognize([rest], [grimace], [replace(rest, residual=3.0)])
    assert passing.why == "covered", "the hand came between onset and apex"


def test_a_hindrance_is_the_reason(recognizer: Recognizer) -> None:
    _, crops, _ = rise("smile")
    assert recognizer.recognize(crops[:2], crops[-1:], crops[2:-1]).label == "positive"
    hindrances: tuple[Hindrance, ...] = ("covered", "turned away")
    for hindrance in hindrances:
        answer = recognizer.recognize(crops[:2], crops[-1:], crops[2:-1], hindrance)
        assert (answer.label, answer.why) == ("uncertain", hindrance)
        assert answer.intensity > 0, "the flow is measured all the same"


def test_a_head_that_turns_on_one_reference_is_named_as_ever(recognizer: Recognizer) -> None:
    _, crops, _ = rise("smile")
    turned = replace(crops[-1], turn=crops[-1].turn + np.float32([4, 0, 0, 0]))
    assert recognizer.recognize(crops[:2], [turned]).label == "positive"


def test_a_large_expression_on_a_turned_head_is_named(recognizer: Recognizer) -> None:
    crops, _ = laugh(24.0)
    for turn, label in ((2.0, "positive"), (6.0, "uncertain")):
        apex = replace(crops[-1], turn=crops[-1].turn + np.float32([0, turn, 0, 0]))
        assert recognizer.recognize(crops[:1], [apex], crops[1:-1]).label == label


# --- many at once ----------------------------------------------------------------------------------------------------------


def moments() -> list[Moment]:
    """Two expressions, a head that turned away, stillness, and a laugh too large for one step."""
    smile, brow = (rise(action)[1] for action in ("smile", "brow_lower"))
    rest = smile[0]
    turned = replace(rest, anchor=rest.anchor + 1, turn=rest.turn + np.float32([4, 0, 0, 0]))
    laughing, _ = laugh(24.0)
    return [
        *(Moment(smile[:2], smile[-1:]), Moment([rest], [turned]), Moment(brow[:3], brow[-2:]), Moment([rest], [rest])),
        Moment(laughing[:1], laughing[-1:], laughing[1:-1]),
    ]


def alike(one: Recognition, other: Recognition, within: float) -> None:
    assert one.label == other.label
    assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=within)
    assert one.intensity == pytest.approx(other.intensity, abs=within)
    np.testing.assert_allclose(one.flow, other.flow, atol=within)


def test_many_are_each_as_alone(recognizer: Recognizer) -> None:
    answers = recognizer.recognize_many(moments())
    assert len({answer.label for answer in answers[:3]}) == 3 and answers[1].label == "uncertain"
    for answer, moment in zip(answers, moments(), strict=True):
        alike(answer, recognizer.recognize(*moment), 1e-6)
    assert recognizer.recognize_many([]) == []


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((64, 64), np.uint8), r"\[128, 128\]; an array of shape \(64, 64\)"),
        (np.zeros((128, 128, 3), np.uint8), r"an array of shape \(128, 128, 3\)"),
        (np.zeros((0, 0), np.uint8), r"an array of shape \(0, 0\)"),
        (np.full((128, 128), np.nan, np.float32), "not finite"),
    ],
)
def test_pictures_that_are_no_crops_are_refused(recognizer: Recognizer, rest: Crop, pixels: Any, message: str) -> None:
    other = replace(rest, pixels=pixels)
    for moment in (Moment([rest], [other]), Moment([other], [rest])):
        with pytest.raises(ArrayError, match=message):
            recognizer.recognize_many([Moment([rest], [rest]), moment])


def test_a_moment_without_crops_or_a_mesh_is_refused(recognizer: Recognizer, rest: Crop) -> None:
    nowhere = replace(rest, landmarks=np.full_like(rest.landmarks, np.nan))
    for bad, message in (([], "none came"), ([nowhere], "finite points"), ([replace(rest, landmarks=POINTS)], r"not \(5, 2\)")):
        with pytest.raises(ArrayError, match=message):
            recognizer.recognize_many([Moment([rest], [rest]), Moment([rest], bad)])


@pytest.mark.parametrize("grey", [0, 1, 90, 255])
def test_a_picture_of_one_grey_is_answered(recognizer: Recognizer, rest: Crop, grey: int) -> None:
    flat = replace(rest, pixels=np.full_like(rest.pixels, grey))
    for answer in recognizer.recognize_many([Moment([flat], [flat]), Moment([rest], [flat]), Moment([flat, flat], [rest])]):
        sane(answer, tuple(recognizer.card.classes))
        assert np.isfinite(answer.flow).all()


def test_crops_may_be_views_of_other_arrays(recognizer: Recognizer) -> None:
    _, crops, _ = rise("smile")
    strided = [replace(crop, pixels=np.repeat(crop.pixels, 2, axis=1)[:, ::2]) for crop in crops]
    fortran = [replace(crop, pixels=np.asfortranarray(crop.pixels)) for crop in crops]
    wanted = recognizer.recognize(crops[:2], crops[-1:])
    for views in (strided, fortran):
        assert not views[0].pixels.flags.c_contiguous
        alike(recognizer.recognize(views[:2], views[-1:]), wanted, 1e-4)


@pytest.fixture
def by_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Recognizer]:
    """Makes recognizers for a GPU that is this CPU."""
    pretend_gpu(monkeypatch)
    monkeypatch.setattr(module, "chosen_for", lambda backend: "gpu")
    monkeypatch.setattr(module, "prepare", lambda backend: backend)
    return lambda: Recognizer(RecognizerSettings(backend="ort"))


def test_the_cpu_is_made_ready_beside_the_gpu(by_gpu: Callable[[], Recognizer], monkeypatch: pytest.MonkeyPatch) -> None:
    ready: list[str] = []
    monkeypatch.setattr(module, "prepare", ready.append)
    by_gpu()
    assert ready == ["gpu", "cpu"], "else a GPU that fails costs the time to load or compile the CPU's code"


def test_the_gpu_answers_many_in_one_trip(
    by_gpu: Callable[[], Recognizer], recognizer: Recognizer, rest: Crop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    from_arrays = flowmap_gpu.from_arrays
    one = by_gpu()
    monkeypatch.setattr(
        flowmap_gpu, "from_arrays", lambda kind, *arrays: [trips.append(len(arrays[0])), from_arrays(kind, *arrays)][1]
    )
    assert one.flow_on_gpu and not recognizer.flow_on_gpu
    for answer, wanted in zip(one.recognize_many(moments()), recognizer.recognize_many(moments()), strict=True):
        alike(answer, wanted, 2e-4)  # measured 6e-7
    assert trips == [5]
    assert len(one.recognize_many([Moment([rest], [rest])] * (AT_ONCE + 2))) == AT_ONCE + 2
    assert trips == [5, AT_ONCE, 2]


@pytest.mark.parametrize("raised", [RuntimeError("CUDA error: device vanished"), MemoryError])
def test_where_the_gpu_fails_the_cpu_goes_on_and_says_so_once(
    by_gpu: Callable[[], Recognizer],
    recognizer: Recognizer,
    raised: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import torch

    def lost(*_: object) -> object:
        raise torch.OutOfMemoryError("2 GiB") if raised is MemoryError else raised

    one, wanted = by_gpu(), recognizer.recognize_many(moments())
    monkeypatch.setattr(Flows, "launch", lost)
    with caplog.at_level(logging.WARNING):
        for answers in (one.recognize_many(moments()), one.recognize_many(moments())):
            for answer, other in zip(answers, wanted, strict=True):
                alike(answer, other, 1e-6)
    assert not one.flow_on_gpu
    (record,) = caplog.records
    problem = (
        "needs more memory than the GPU has free" if raised is MemoryError else "failed on the GPU: CUDA error: device vanished"
    )
    assert record.getMessage() == f"Preparing 5 maps {problem}; from here on the CPU computes it"


def test_a_gpu_that_fails_at_the_start_is_left_then(
    by_gpu: Callable[[], Recognizer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> object:
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(Flows, "launch", lost)
    with caplog.at_level(logging.WARNING):
        assert not by_gpu().flow_on_gpu
    assert "Preparing 1 maps failed on the GPU: CUDA error: no kernel image is available" in caplog.text


class OnDevice(EagerRunner):
    """A network that takes maps on the device; failing says how it fails there."""

    failing: Exception | None = None
    asked = 0

    @property
    def on_device(self) -> Callable[[Any], Any]:
        return self._there

    def _there(self, maps: Any) -> Any:
        self.asked += len(maps)
        if self.failing:
            raise self.failing
        return self._network(maps)


@pytest.fixture
def with_network(by_gpu: Callable[[], Recognizer]) -> Recognizer:
    """A recognizer whose network takes maps on the GPU."""
    one = by_gpu()
    one.runner = OnDevice(default_weights())
    return one


def test_the_network_answers_where_the_maps_lie(with_network: Recognizer, recognizer: Recognizer) -> None:
    for answer, wanted in zip(with_network.recognize_many(moments()), recognizer.recognize_many(moments()), strict=True):
        alike(answer, wanted, 2e-4)
    assert isinstance(with_network.runner, OnDevice) and with_network.runner.asked == len(moments())


@pytest.mark.parametrize("failing", [BackendError("no memory"), None])
def test_a_network_that_fails_there_is_asked_by_arrays(
    with_network: Recognizer, recognizer: Recognizer, failing: BackendError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if failing:
        monkeypatch.setattr(OnDevice, "failing", failing)
    else:
        monkeypatch.setattr(OnDevice, "_there", lambda self, maps: maps[:, :, 0, 0] * np.nan)
    for answer, wanted in zip(with_network.recognize_many(moments()), recognizer.recognize_many(moments()), strict=True):
        alike(answer, wanted, 2e-4)
    assert with_network.flow_on_gpu, "the flow is right where it is"
