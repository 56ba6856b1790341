from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import cv2
import numpy as np
import pytest

from engine.errors import ArrayError
from engine.types import MICRO_LIMIT_S, Event, Evidence, Frame, Layout, Mark, Span
from tests.videos import quadrants

RGB = quadrants(64, 48)
I420 = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
EVENT = Event(
    id="a1",
    stream="lobby",
    face=0,
    state="final",
    kind="micro",
    onset=Mark(120, 4.0040001),
    apex=Mark(126, 4.204),
    offset=Mark(133, 4.438),
    label="surprise",
    probabilities={"negative": 0.03, "positive": 0.050001, "surprise": 0.92},
    confidence=0.92,
    intensity=1.31,
    model="ahmsa@sha256:0123",
)


@pytest.mark.parametrize(("layout", "pixels"), [("rgb", RGB), ("i420", I420), ("grey", GREY)])
def test_every_layout_gives_size_grey_and_rgb(layout: Layout, pixels: np.ndarray) -> None:
    frame = Frame(0, 0.0, pixels, layout)
    assert (frame.width, frame.height) == (64, 48)
    assert frame.grey.shape == (48, 64)
    assert frame.rgb.shape == (48, 64, 3)
    assert abs(int(frame.grey[8, 8]) - 255) <= 20
    if layout != "grey":
        assert np.abs(frame.rgb[8::32, 8::32].astype(int) - RGB[8::32, 8::32]).max() <= 12


def test_grey_copies_nothing_where_the_layout_carries_it() -> None:
    assert Frame(0, 0.0, GREY, "grey").grey.base is GREY or np.shares_memory(Frame(0, 0.0, GREY, "grey").grey, GREY)
    assert np.shares_memory(Frame(0, 0.0, I420, "i420").grey, I420)


@pytest.mark.parametrize(
    ("pixels", "layout"),
    [
        (RGB, "grey"),
        (GREY, "rgb"),
        (RGB[..., :2], "rgb"),
        (I420[:-1], "i420"),
        (GREY.astype(np.float32), "grey"),
        (GREY[:0], "grey"),
        (RGB, "bgr"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(pixels: np.ndarray, layout: Layout) -> None:
    with pytest.raises(ArrayError):
        Frame(0, 0.0, pixels, layout)


@pytest.mark.parametrize("t", [float("nan"), float("inf")])
def test_a_frame_without_a_time_is_refused(t: float) -> None:
    with pytest.raises(ArrayError, match="no usable time"):
        Frame(7, t, GREY, "grey")


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        EVENT.label = "negative"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("length", "kind"), [(0.1, "micro"), (MICRO_LIMIT_S, "micro"), (MICRO_LIMIT_S + 0.01, "macro"), (None, None)]
)
def test_half_a_second_is_the_border_of_micro(length: float | None, kind: str | None) -> None:
    offset = None if length is None else Mark(20, 1.0 + length)
    assert Span(0, 0, "final", Mark(0, 1.0), Mark(1, 1.05), offset).kind == kind


def test_the_json_form_has_the_fixed_names_in_order() -> None:
    fields = EVENT.as_dict()
    names = "type v id stream face state kind onset apex offset label probabilities confidence intensity model speaking"
    assert list(fields) == names.split()
    assert (fields["type"], fields["v"]) == ("expression", 1)
    assert fields["onset"] == {"frame": 120, "t": 4.004}
    assert fields["probabilities"]["positive"] == 0.05
    assert json.loads(json.dumps(fields)) == fields


def test_a_provisional_event_has_no_end_and_a_truncated_one_says_so() -> None:
    assert replace(EVENT, state="provisional", kind=None, offset=None).as_dict()["offset"] is None
    assert replace(EVENT, truncated=True).as_dict()["truncated"] is True
    assert "truncated" not in EVENT.as_dict()


def test_an_uncertain_event_says_why() -> None:
    assert replace(EVENT, label="uncertain", why="covered").as_dict()["why"] == "covered"
    assert "why" not in EVENT.as_dict()


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        replace(EVENT, truncated=True, speaking=True, expression_probability=0.5),
        replace(EVENT, label="uncertain", why="covered"),
        replace(EVENT, state="provisional", kind=None, offset=None),
    ],
)
def test_the_json_form_gives_the_event_back(event: Event) -> None:
    assert Event.from_dict({**event.as_dict(), "seq": 1}).as_dict() == event.as_dict()


def test_evidence_is_no_part_of_what_an_event_says() -> None:
    grey = np.zeros((128, 128), np.uint8)
    seen = replace(EVENT, evidence=Evidence(grey, grey, np.zeros((2, 128, 128), np.float32)))
    assert (seen, hash(seen), repr(seen), seen.as_dict()) == (EVENT, hash(EVENT), repr(EVENT), EVENT.as_dict())
