from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from engine.pipeline import event_id
from engine.types import F32, Activity, Event
from stream.recorded.parts.join import joined
from stream.recorded.passage import Ending, Found, Seen, Step
from tests.parts import MadePart, shorten_parts

SEAM = 20.0


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Parts that overlap from 13 to 25 s, and take over between 18 and 22 s."""
    shorten_parts(monkeypatch, warm=5.0, around=2.0, tail=3.0, least=1.0)
    yield


def two(left: dict[int, float] | None = None, right: dict[int, float] | None = None) -> tuple[MadePart, MadePart]:
    return MadePart(0, 249, left), MadePart(130, 399, right)


def join(*parts: Iterable[Step], seams: tuple[float, ...] = (SEAM,)) -> list[Step]:
    return list(joined(seams, parts, stream="v"))


def frames(steps: list[Step]) -> list[Seen]:
    return [step for step in steps if isinstance(step, Seen)]


def found(steps: list[Step]) -> tuple[list[Event], list[Activity]]:
    parts = [step for step in steps if isinstance(step, Found)]
    return [event for one in parts for event in one.events], [one for part in parts for one in part.activities]


def ending(steps: list[Step]) -> Ending:
    last = steps[-1]
    assert isinstance(last, Ending)
    return last


def test_each_frame_comes_once_with_its_number() -> None:
    steps = join(*two())
    assert [(one.frame.index, one.frame.t) for one in frames(steps)] == [(k, k / 10) for k in range(400)]
    assert [seen.mark.frame for one in frames(steps) for seen in one.observations] == list(range(400))


def test_the_ending_is_that_of_the_whole() -> None:
    steps = join(*two())
    last = ending(steps)
    assert (last.reading.counts.frames, last.reading.start, last.reading.end) == (400, 0.0, 39.9)
    assert (last.statistics["frames"], last.statistics["frames_with_face"], last.statistics["faces"]) == (400, 400, 1)
    assert last.spent_s == 3.0
    assert frames(steps)[-1].reading.counts.frames == 400


def test_an_expression_is_of_the_part_in_which_it_begins() -> None:
    left, right = two()
    left.event(16, 17, known=18.5)  # before the seam, known in the overlap
    right.event(16, 17, known=18.5)
    left.event(23, 24, known=24.5)  # after it: the other part's
    right.event(23.1, 24, known=24.5)
    events, _ = found(join(left, right))
    assert [(event.onset.t, event.onset.frame) for event in events] == [(16, 160), (23.1, 231)]
    assert [event.id for event in events] == [event_id("", "v", 0, 0), event_id("", "v", 0, 1)]


def test_what_a_part_knows_only_after_its_time_is_not_lost() -> None:
    left, right = two()
    left.event(16, 18, known=22.5)
    right.event(16, 18, known=22.5)
    events, _ = found(join(left, right))
    assert [event.onset.t for event in events] == [16]


@pytest.mark.parametrize("onset", [18.5, 19.0, 19.5, 20.0, 20.5])
def test_no_expression_at_the_seam_is_cut_doubled_or_lost(onset: float) -> None:
    left, right = two()
    left.event(onset, onset + 1, known=onset + 1.5)
    right.event(onset + 0.1, onset + 1.1, known=onset + 1.5)
    events, _ = found(join(left, right))
    assert len(events) == 1
    assert events[0].onset.t in (onset, onset + 0.1)


def test_expressions_all_over_the_overlap_come_once() -> None:
    left, right = two()
    for onset in range(14, 25):
        left.event(onset, onset + 0.9, known=min(onset + 1.5, 24.9))
        right.event(onset, onset + 0.9, known=onset + 1.5)
    events, _ = found(join(left, right))
    assert [event.onset.t for event in events] == list(range(14, 25))


def test_an_activity_across_the_seam_begins_where_the_first_part_saw_it_begin() -> None:
    left, right = two()
    left.activity(5, 24.9, known=24.9)  # ended by the part's end
    right.activity(13, 31, known=31)
    _, activities = found(join(left, right))
    assert [(one.start.t, one.start.frame, one.end.t, one.end.frame) for one in activities] == [(5, 50, 31, 310)]


def test_an_activity_through_a_whole_part_begins_where_it_began() -> None:
    first, middle, last = MadePart(0, 249), MadePart(130, 449), MadePart(330, 600)
    first.activity(5, 24.9, known=24.9)
    middle.activity(13, 44.9, known=44.9)
    last.activity(33, 55, known=55)
    _, activities = found(join(first, middle, last, seams=(20.0, 40.0)))
    assert [(one.start.t, one.end.t, one.end.frame) for one in activities] == [(5, 55, 550)]


def test_an_activity_that_only_the_first_part_saw_stays() -> None:
    left, right = two()
    left.activity(17, 23, known=23.5, kind="gaze")
    _, activities = found(join(left, right))
    assert [(one.start.t, one.end.t) for one in activities] == [(17, 23)]


def test_a_later_activity_of_the_same_kind_keeps_its_start() -> None:
    left, right = two()
    for part in (left, right):
        part.activity(17, 22.1, known=22.5)
        part.activity(23, 24, known=24.5)
    _, activities = found(join(left, right))
    assert [(one.start.t, one.end.t) for one in activities] == [(17, 22.1), (23, 24)]


def test_faces_keep_their_numbers_by_their_places() -> None:
    left, right = two({0: 0.0, 1: 300.0}, {0: 305.0, 1: 4.0})
    left.event(15, 16, known=17, face=1)
    right.event(30, 31, known=32, face=0)
    steps = join(left, right)
    assert all([face.id for face in one.faces] == [0, 1] for one in frames(steps))
    assert {one.observations[1].box[0] for one in frames(steps)} == {300.0, 305.0}
    assert [event.face for event in found(steps)[0]] == [1, 1]


def test_a_face_that_comes_later_gets_the_next_number() -> None:
    left, right = two({0: 0.0}, {0: 500.0, 1: 0.0})
    steps = join(left, right)
    assert [face.id for face in frames(steps)[-1].faces] == [0, 1]
    assert ending(steps).statistics["faces"] == 2


def look(person: int) -> F32:
    """How a person looks: like nobody else."""
    picture = np.zeros((32, 32), np.float32)
    picture[person] = 32**-0.5
    return picture


def test_a_face_that_only_the_end_of_a_part_shows_takes_no_number() -> None:
    """As after a cut within the overlap: the next part, which has taken over by then, shows it, too."""
    left, right = two({0: 0.0}, {0: 0.0})
    for number in range(220, 250):
        left.hide(number, 0)
        left.show(number, 1, 300.0)
    for number in range(90, 270):
        right.hide(number, 0)
        right.show(number, 1, 300.0)
    left.event(22.5, 23.5, known=24.5, face=1)
    left.activity(22.4, 23.0, known=24.0, face=1)
    right.event(22.5, 23.5, known=24.5, face=1)
    steps = join(left, right)
    assert [[face.id for face in frames(steps)[at].faces] for at in (0, 219, 220, 399)] == [[0], [0], [1], [1]]
    assert [event.face for event in found(steps)[0]] == [1]
    assert ending(steps).statistics["faces"] == 2


@pytest.mark.parametrize(("returns", "numbers"), [(1, [0, 1]), (2, [0, 2])])
def test_a_face_that_was_away_where_parts_meet_is_known_by_its_looks(returns: int, numbers: list[int]) -> None:
    left, right = two({0: 0.0, 1: 300.0}, {0: 0.0})
    left.look(0, 0, look(0))
    left.look(0, 1, look(1))
    for number in range(100, 250):
        left.hide(number, 1)
    right.look(0, 0, look(0))
    for number in range(200, 270):
        right.show(number, 1, 500.0)
    right.look(200, 1, look(returns))
    steps = join(left, right)
    assert [face.id for face in frames(steps)[0].faces] == [0, 1]
    assert [[face.id for face in frames(steps)[at].faces] for at in (250, 329, 330, 399)] == [[0], [0], numbers, numbers]
    assert ending(steps).statistics["faces"] == max(numbers) + 1


def test_of_two_faces_only_one_is_that_which_was_there() -> None:
    left, right = two({0: 0.0}, {0: 0.0, 1: 300.0})
    left.look(0, 0, look(0))
    right.look(0, 0, look(0))
    right.look(100, 1, look(0))
    assert [face.id for face in frames(join(left, right))[-1].faces] == [0, 1]


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_the_steps_end_with_a_part_that_is_not_complete(how: str) -> None:
    left, right = MadePart(0, 100), MadePart(130, 399)
    left.failure, left.stopped = ("it broke off", False) if how == "failed" else (None, True)
    steps = join(left, right)
    last = ending(steps)
    assert (last.failure, last.stopped) == (left.failure, left.stopped)
    assert [one.frame.index for one in frames(steps)] == list(range(101))
    assert last.reading.counts.frames == 101


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_a_part_that_ends_before_it_takes_over_leaves_the_one_before(how: str) -> None:
    left, right = MadePart(0, 249), MadePart(130, 170)
    right.failure, right.stopped = ("it broke off", False) if how == "failed" else (None, True)
    left.event(23, 24, known=24.5)
    steps = join(left, right)
    last = ending(steps)
    assert (last.failure, last.stopped) == (right.failure, right.stopped)
    assert [one.frame.index for one in frames(steps)] == list(range(250))
    assert (last.reading.end, last.reading.counts.frames) == (24.9, 250)
    assert len(found(steps)[0]) == 1


def test_expressions_that_the_parts_place_differently_come_once() -> None:
    left, right = two()
    for onset in range(16, 25):  # never quiet, so that some begin beside the place where parts meet
        for number in range(4):
            at = onset + number / 4
            left.event(at, at + 1.5, known=min(at + 2, 24.9), face=number)
            right.event(at + (0.1 if number % 2 else -0.1), at + 1.5, known=at + 2, face=number)
    left.faces = right.faces = {number: 200.0 * number for number in range(4)}
    for part in (left, right):
        part.place_faces()
    events, _ = found(join(left, right))
    for face in range(4):
        onsets = [event.onset.t for event in events if event.face == face]
        assert len(onsets) == 9, onsets


def test_an_activity_that_the_later_part_never_ends_is_kept() -> None:
    left, right = two()
    left.activity(17, 23, known=23.5, kind="gaze")
    right.activity(17, 30, known=30, kind="gaze")
    right.found.clear()  # it is dropped in the end
    _, activities = found(join(left, right))
    assert [(one.start.t, one.end.t) for one in activities] == [(17, 23)]


def test_without_a_later_part_the_steps_end_with_the_first() -> None:
    left, _ = two()
    left.event(23, 24, known=24.5)
    steps = join(left)
    assert len(frames(steps)) == 250
    assert len(found(steps)[0]) == 1
    assert ending(steps).reading.counts.frames == 250


def test_parts_are_drawn_only_when_they_are_needed() -> None:
    left, right = two()
    drawn: list[str] = []

    def parts() -> Iterator[Iterable[Step]]:
        for name, part in (("left", left), ("right", right)):
            drawn.append(name)
            yield part

    steps = joined([SEAM], parts(), stream="v")
    for _ in range(150):
        next(steps)
    assert drawn == ["left"]
    assert len([step for step in steps if isinstance(step, Seen)]) == 250
    assert drawn == ["left", "right"]
