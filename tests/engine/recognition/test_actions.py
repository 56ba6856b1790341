from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mesh import BLENDSHAPE_NAMES
from engine.recognition.actions import CLASSES, EVIDENCE, SMALL_PX, Actions, by_actions, facial_actions, fuse
from engine.recognition.recognizer import Recognizer
from engine.registration.regions import REGION_NAMES
from engine.types import Crop, Mark
from tests.faces import rise

EVEN = dict.fromkeys(CLASSES, 1 / 3)
BROAD_SMILE = {"mouthSmile": 0.8, "mouthUpperUp": 0.5, "eyeSquint": 0.2}
SURPRISE = {"browInnerUp": 0.4, "browOuterUp": 0.3, "eyeWide": 0.05, "jawOpen": 0.3}
FROWN = {"browDown": 0.35, "mouthPress": 0.2}
DISGUST = {"browDown": 0.3, "mouthUpperUp": 0.4, "mouthFrown": 0.1, "eyeSquint": 0.25}
SADNESS = {"mouthFrown": 0.2, "mouthShrugLower": 0.3, "browDown": 0.15}


def crop(t: float, shapes: Mapping[str, float], moves: Mapping[str, float] | None = None, age: float = 0.0) -> Crop:
    """A crop at a time: blendshapes (both sides at once), regions' motion downwards in pixels; the rest at rest."""
    sides = {name: shapes.get(name.removesuffix("Left").removesuffix("Right"), 0.0) for name in BLENDSHAPE_NAMES}
    motion = np.zeros((len(REGION_NAMES), 2), np.float32)
    for name, down in (moves or {}).items():
        motion[REGION_NAMES.index(name), 1] = down
    blank = np.zeros((128, 128), np.uint8)
    mesh = np.zeros((478, 3), np.float32)
    return Crop(
        *(0, Mark(round(30 * t), t), blank, np.eye(2, 3), mesh, motion, 0.3, np.zeros(4, np.float32), 0.1, 0, sides, age)
    )


def seen(shapes: Mapping[str, float], before: Mapping[str, float] | None = None, **moves: float) -> Actions:
    actions = facial_actions(
        [crop(0.0, before or {})],
        [crop(0.5, shapes, moves or {"cheek_left": -3.0, "lip_corner_left": -4.0, "lip_corner_right": -4.0})],
    )
    assert actions is not None
    return actions


@pytest.mark.parametrize(
    ("shapes", "label"),
    [
        (BROAD_SMILE, "positive"),
        (SURPRISE, "surprise"),
        (FROWN, "negative"),
        (DISGUST, "negative"),
        (SADNESS, "negative"),
    ],
)
def test_a_large_expression_is_named_by_its_actions(shapes: Mapping[str, float], label: str) -> None:
    for named in (fuse(EVEN, 6.0, seen(shapes)), by_actions(seen(shapes))):
        assert max(named.shrunk, key=named.shrunk.__getitem__) == label
    wrong = {name: 0.1 if name == label else 0.45 for name in CLASSES}
    assert fuse(wrong, 6.0, seen(shapes)).shrunk[label] > 0.5


@given(st.floats(0, SMALL_PX), st.floats(0, 0.2), st.sampled_from(sorted(EVIDENCE)))
def test_a_small_motion_is_named_by_the_network_alone(px: float, size: float, action: str) -> None:
    probabilities = {"negative": 0.2, "positive": 0.5, "surprise": 0.3}
    named = fuse(probabilities, px, Actions({action: size}, 0.5, size, 10 * size, 0.0, 0.0))
    assert named.shrunk == probabilities and named.none == 0


def test_evidence_counts_more_the_larger_the_motion() -> None:
    weights = [
        fuse(EVEN, px, seen({"browDown": 0.1}, cheek_left=-1.0)).probabilities["negative"] for px in (1.5, 1.8, 2.5, 3.0)
    ]
    assert weights == sorted(weights) and weights[0] < weights[1] < weights[-1]


def test_lips_that_move_far_are_no_small_motion() -> None:
    sure = {"negative": 0.9, "positive": 0.05, "surprise": 0.05}
    assert fuse(sure, 1.0, seen({}, lower_lip=2.0)).shrunk == sure
    assert fuse(sure, 1.0, seen({"mouthPucker": 0.2}, lower_lip=5.0)).shrunk["negative"] < 0.7


def test_the_network_counts_less_the_larger_the_motion() -> None:
    sure = {"negative": 0.9, "positive": 0.05, "surprise": 0.05}
    found = [fuse(sure, px, seen({}, cheek_left=-1.0)).shrunk["negative"] for px in (1.5, 2.0, 4.0, 8.0)]
    assert found == sorted(found, reverse=True) and found[0] == 0.9 and found[-1] < 0.6


def test_an_open_jaw_alone_is_no_surprise() -> None:
    syllable = seen({"jawOpen": 0.4, "mouthLowerDown": 0.2}, chin=8.0, lower_lip=8.0, upper_lip=-1.0)
    named = fuse(EVEN, 4.0, syllable)
    assert max(named.shrunk.values()) < 0.5 and named.none > 0.5
    raised = seen({"jawOpen": 0.4, "browInnerUp": 0.3, "browOuterUp": 0.3}, chin=8.0, brow_inner_left=-5.0)
    assert fuse(EVEN, 4.0, raised).shrunk["surprise"] > 0.8


def test_a_wide_mouth_whose_corners_stay_down_is_no_clear_smile() -> None:
    drawn = seen(BROAD_SMILE | {"mouthStretch": 0.6}, lip_corner_left=0.5, lip_corner_right=0.5)
    assert drawn.sizes["smile"] < seen(BROAD_SMILE).sizes["smile"] / 2
    assert max(fuse(EVEN, 4.0, drawn).shrunk, key=fuse(EVEN, 4.0, drawn).shrunk.__getitem__) == "negative"


def test_a_blink_is_no_action() -> None:
    assert not seen({"eyeBlink": 0.7, "eyeSquint": 0.3}).evidence.any()
    assert not seen({}, {"eyeBlink": 0.7, "eyeSquint": 0.3}).evidence.any()


@pytest.mark.parametrize("shapes", [BROAD_SMILE, SURPRISE, FROWN])
def test_an_expression_that_ends_is_none(shapes: Mapping[str, float]) -> None:
    sure = {"negative": 0.8, "positive": 0.1, "surprise": 0.1}
    named = fuse(sure, 4.0, seen({}, shapes))
    assert named.none > fuse(sure, 4.0, seen(shapes)).none + 0.2
    assert max(named.shrunk.values()) < 0.6
    assert sum(named.shrunk.values()) == pytest.approx(1)


def test_a_mesh_that_was_not_refreshed_since_the_onset_is_no_evidence() -> None:
    assert facial_actions([crop(0.0, {})], [crop(0.5, BROAD_SMILE, age=0.5)]) is None
    assert facial_actions([replace(crop(0.0, {}), blendshapes={})], [crop(0.5, BROAD_SMILE)]) is None
    assert fuse({"a": 0.4, "b": 0.6}, 9.0, seen(BROAD_SMILE)).shrunk == {"a": 0.4, "b": 0.6}, "other classes"
    assert fuse(EVEN, 9.0, None).shrunk == EVEN


def test_the_recognizer_names_by_both() -> None:
    recognizer = Recognizer()
    _, crops, _ = rise("brow_lower", px=5.0)
    calm = dict.fromkeys(BLENDSHAPE_NAMES, 0.0)
    onset = [replace(crops[0], blendshapes=calm)]
    answers = {}
    for name, shapes in (("frown", FROWN), ("surprise", SURPRISE), ("nothing", {})):
        apex = replace(crops[-1], mesh_age=0.0, blendshapes=crop(0.0, shapes).blendshapes)
        answers[name] = recognizer.recognize(onset, [apex])
    assert answers["frown"].label == "negative" and answers["surprise"].label == "surprise"
    assert answers["frown"].confidence > answers["nothing"].confidence
    assert answers["frown"].confidence == max(answers["frown"].probabilities.values())


def test_a_turned_head_is_named_by_clear_actions_alone() -> None:
    recognizer = Recognizer()
    _, crops, _ = rise("brow_lower")
    onset = replace(crops[0], blendshapes=crop(0.0, {}).blendshapes)
    turned = replace(crops[-1], mesh_age=0.0, anchor=onset.anchor + 1, turn=onset.turn + np.array([4, 0, 0, 0], np.float32))
    for shapes, label, why in ((BROAD_SMILE, "positive", None), ({"jawOpen": 0.5}, "uncertain", "turned away")):
        answer = recognizer.recognize([onset], [replace(turned, blendshapes=crop(0.0, shapes).blendshapes)])
        assert (answer.label, answer.why) == (label, why)
