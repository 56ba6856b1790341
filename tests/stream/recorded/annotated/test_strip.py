from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.types import U8, Activity, Mark
from stream.recorded.annotated.canvas import Canvas
from stream.recorded.annotated.findings import Findings
from stream.recorded.annotated.strip import AFTER_S, BEFORE_S, CURVE, SPEECH, Layout, clock, draw_strip, ink_on
from stream.recorded.colours import colour_of
from tests.events import an_event
from tests.stream.recorded.annotated.test_findings import measured

SECOND_PX = 640 / (BEFORE_S + AFTER_S)


def drawn(findings: Findings, t: float, faces: tuple[int, ...] = (0,), origin: float = 0.0) -> tuple[U8, Layout]:
    """The strip [H, 640, 3] RGB at t below a picture of 640 x 360."""
    layout = Layout.of(640, 360, len(faces))
    canvas = Canvas(layout.width, layout.whole)
    draw_strip(canvas, layout, findings, faces, Mark(round(30 * t), t), origin=origin)
    assert (canvas.pixels[: layout.height] == 16).all(), "the strip reaches into the picture"
    return np.asarray(cv2.cvtColor(canvas.pixels, cv2.COLOR_YUV2RGB_I420), np.uint8)[layout.height :], layout


def columns_like(picture: U8, colour: str, tolerance: int = 40) -> list[int]:
    """Columns with pixels of a colour."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    near = np.abs(picture.astype(int) - rgb).max(axis=2) < tolerance
    return np.flatnonzero(near.any(axis=0)).tolist()


@pytest.mark.parametrize("size", [(64, 48), (320, 240), (641, 361), (3840, 2160), (720, 1280)])
@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_sizes_are_even_and_text_grows_with_the_picture(size: tuple[int, int], lanes: int) -> None:
    layout = Layout.of(*size, lanes)
    assert layout.width % 2 == layout.height % 2 == layout.whole % 2 == 0
    assert layout.width - size[0] in (0, 1)
    assert layout.height + lanes * layout.lane < layout.whole < 4 * layout.height
    assert layout.font >= 9
    if min(size) >= 240:
        assert 0.02 < layout.font / min(size) < 0.055


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00.00"),
        (7.126, "0:07.13"),
        (59.999, "1:00.00"),
        (754.5, "12:34.50"),
        (36000.25, "10:00:00.25"),
        (-1.5, "-0:01.50"),
    ],
)
def test_the_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_an_expression_is_drawn_from_onset_to_offset() -> None:
    findings = Findings()
    findings.add_event(an_event(10, label="negative", length_s=1.0))
    picture, layout = drawn(findings, 10.0)
    lane = picture[layout.lane // 2 : layout.lane - layout.font // 2]
    shaded = columns_like(lane, "#6E3F16")
    assert shaded[0] == pytest.approx(BEFORE_S * SECOND_PX, abs=3)
    assert shaded[-1] == pytest.approx((BEFORE_S + 1.0) * SECOND_PX, abs=3)
    assert columns_like(picture, colour_of("negative"))
    assert not columns_like(drawn(findings, 30.0)[0], colour_of("negative"))


def test_the_curve_rises_with_loudness() -> None:
    findings = Findings()
    measured(findings, np.arange(0, 4, 1 / 30))
    picture, layout = drawn(findings, 4.0)
    lane = picture[: layout.lane].astype(int)
    bright = np.abs(lane - [int(CURVE[k : k + 2], 16) for k in (1, 3, 5)]).max(axis=2) < 60
    heights = [np.flatnonzero(bright[:, round(t * SECOND_PX)]).mean() for t in (0.5, 1.5, 3.5)]
    assert heights[0] > heights[1] > heights[2]


def test_speech_is_shaded() -> None:
    findings = Findings()
    findings.add_activity(Activity(0, "speech", Mark(0, 8.0), Mark(0, 9.0)))
    picture, layout = drawn(findings, 10.0)
    spoken = columns_like(picture[layout.lane - 2 : layout.lane], SPEECH, 60)
    assert spoken[0] == pytest.approx(2 * SECOND_PX, abs=3) and spoken[-1] == pytest.approx(3 * SECOND_PX, abs=3)


def test_each_face_has_a_lane_of_its_own() -> None:
    findings = Findings()
    findings.add_event(an_event(10, face=3, label="surprise"))
    picture, layout = drawn(findings, 10.0, faces=(1, 3))
    assert not columns_like(picture[: layout.lane], colour_of("surprise"))
    assert columns_like(picture[layout.lane : 2 * layout.lane], colour_of("surprise"))


def test_the_time_shown_is_that_of_a_player() -> None:
    at_ten_hours, _ = drawn(Findings(), 36_002.0, (), origin=36_000.0)
    at_start, _ = drawn(Findings(), 2.0, ())
    assert (at_ten_hours[:, :70] == at_start[:, :70]).all()
    assert (at_start[:, :70] != drawn(Findings(), 3.0, ())[0][:, :70]).any()


def test_ink_is_readable() -> None:
    assert {ink_on("#000000"), ink_on("#0072B2")} == {"#FFFFFF"}
    assert {ink_on("#FFFFFF"), ink_on("#F0E442")} == {"#000000"}
