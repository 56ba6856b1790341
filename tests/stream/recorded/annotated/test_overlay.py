from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.types import U8, Activity, Mark
from stream.recorded.annotated.canvas import Canvas
from stream.recorded.annotated.findings import Findings
from stream.recorded.annotated.overlay import describe, draw_face
from stream.recorded.annotated.spool import Place, Spool
from stream.recorded.annotated.strip import PANEL, Layout
from stream.recorded.colours import colour_of
from tests.events import an_event
from tests.stream.recorded.annotated.test_spool import a_face, unregistered
from tests.stream.recorded.annotated.test_strip import columns_like


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A face in the box from (100, 100) to (200, 200)."""
    spool, face = Spool(tmp_path), a_face(0)
    spool.append([face], [unregistered(face)])
    ((found,),) = spool
    spool.close()
    return found


def drawn(place: Place, findings: Findings, frame: int, *, named: bool = False) -> U8:
    layout = Layout.of(640, 360, 1)
    canvas = Canvas(layout.width, layout.whole, "#808080")
    draw_face(canvas, layout, place, findings, Mark(frame, frame / 30), named=named)
    return np.asarray(cv2.cvtColor(canvas.pixels, cv2.COLOR_YUV2RGB_I420), np.uint8)


def test_an_expression_is_shown_from_its_onset_to_its_offset(place: Place) -> None:
    findings = Findings()
    event = an_event(3, label="surprise")
    findings.add_event(event)
    assert event.offset is not None
    shown = [bool(columns_like(drawn(place, findings, k)[60:95], colour_of("surprise"), 12)) for k in range(85, 110)]
    assert shown == [event.onset.frame <= k <= event.offset.frame for k in range(85, 110)]


def test_it_is_described() -> None:
    event = an_event(3)
    lines = [describe(event, Mark(k, k / 30)) for k in (92, 96, 99)]
    assert {line[0] for line in lines} == {"surprise 0.92"}
    assert [line[1] for line in lines] == [f"micro 0.40 s · {phase}" for phase in ("rises", "apex", "falls")]
    uncertain = an_event(3, label="uncertain", confidence=0.33, why="unlike known expressions")
    assert describe(uncertain, Mark(92, 92 / 30)) == ("uncertain", "unlike known expressions")
    assert describe(an_event(3, truncated=True), Mark(92, 92 / 30))[1] == "micro 0.40 s, cut short · rises"
    assert "\x1b" not in describe(an_event(3, label="a\x1b[31m"), Mark(92, 92 / 30))[0]


def test_the_regions_are_drawn_around_the_face(place: Place) -> None:
    picture = drawn(place, Findings(), 0)
    changed = (picture != picture[0, 0]).any(axis=2)
    assert changed[100:200, 100:200].sum() > 300
    changed[60:240, 60:240] = False
    assert not changed.any()


def test_what_the_face_does_is_named_below_it(place: Place) -> None:
    findings = Findings()
    findings.add_activity(Activity(0, "speech", Mark(30, 1.0), Mark(60, 2.0)))
    findings.add_activity(Activity(0, "motion", Mark(90, 3.0), Mark(99, 3.3)))
    shown = [bool(columns_like(drawn(place, findings, k)[205:220], PANEL, 40)) for k in (15, 45, 95)]
    assert shown == [False, True, False]
    assert columns_like(drawn(place, findings, 15, named=True)[205:220], PANEL, 40)


@pytest.mark.parametrize("shift", [(-150, -150), (500, 200), (0, -98), (5000, 5000)])
def test_labels_stay_in_the_picture(place: Place, shift: tuple[int, int]) -> None:
    findings = Findings()
    findings.add_event(an_event(3, label="negative"))
    picture = drawn(place.moved(*shift), findings, 95, named=True)
    layout = Layout.of(640, 360, 1)
    assert len(columns_like(picture[: layout.height], colour_of("negative"), 12)) > 4 * layout.font
