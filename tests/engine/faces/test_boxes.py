from __future__ import annotations

import pytest

from engine.faces.boxes import inside, same_face


@pytest.mark.parametrize(("dx", "width", "same"), [(0, 100, True), (30, 80, True), (60, 100, False), (0, 30, False)])
def test_boxes_near_and_alike_are_one_face(dx: float, width: float, same: bool) -> None:
    a, b = (200.0, 150.0, 100.0), (200.0 + dx, 150.0, width)
    assert same_face(a, b) is same_face(b, a) is same


@pytest.mark.parametrize(
    ("dx", "width", "within"),
    [(0, 20, True), (40, 20, True), (75, 20, True), (85, 20, False), (60, 60, False), (60, 300, False)],
)
def test_a_box_is_inside_where_its_centre_is(dx: float, width: float, within: bool) -> None:
    assert inside((200.0 + dx, 150.0, width), (200.0, 150.0, 100.0)) is within
