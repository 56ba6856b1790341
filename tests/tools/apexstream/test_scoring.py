from __future__ import annotations

from dataclasses import replace

import pytest

from apexstream.scoring import compare, labels_of, of_kind
from stream.annotations.timed_label import TimedLabel
from stream.events.formats import Entry
from tests.events import an_event

FPS = 30.0


def label(start: int, end: int, name: str = "positive", face: int | None = None, apex: int | None = None) -> TimedLabel:
    """A label from frame to frame."""
    return TimedLabel(start / FPS, end / FPS, name, None if apex is None else apex / FPS, face)


def test_the_truth_itself_scores_one() -> None:
    truth = [label(10, 20, apex=15), label(40, 45, "negative"), label(60, 60, "surprise")]
    result = compare(truth, truth, fps=FPS, length_s=5.0)
    assert (result.score.tp, result.score.f1, result.kappa, result.frame_kappa) == (3, 1.0, 1.0, 1.0)
    assert {name: list(values) for name, values in result.errors.items()} == {"onset": [0] * 3, "apex": [0], "offset": [0] * 3}


def test_half_of_the_frames_is_enough_and_less_is_not() -> None:
    """Both frames of an interval count: 5 of 10, against 5 of 11."""
    half = compare([label(0, 4)], [label(0, 9)], fps=FPS, length_s=1.0)
    less = compare([label(0, 4)], [label(0, 10)], fps=FPS, length_s=1.0)
    assert (half.score.tp, less.score.tp) == (1, 0)
    assert (less.score.fp, less.score.fn) == (1, 1)


def test_errors_are_found_minus_coded() -> None:
    found = [label(12, 20, apex=15), label(41, 50, apex=45)]
    coded = [label(10, 21, apex=16), label(40, 50)]
    figures = compare(found, coded, fps=FPS, length_s=3.0).as_dict()
    assert figures["errors"] == {
        "onset": {"count": 2, "median_ms": 50.0, "median_frames": 1.5, "mean_ms": 50.0, "mean_frames": 1.5},
        "apex": {"count": 1, "median_ms": 33.3, "median_frames": 1.0, "mean_ms": -33.3, "mean_frames": -1.0},
        "offset": {"count": 2, "median_ms": 16.7, "median_frames": 0.5, "mean_ms": -16.7, "mean_frames": -0.5},
    }
    assert (figures["matched"], figures["precision"], figures["kappa"]) == (2, 1.0, None)


def test_a_coders_own_labels_are_mapped() -> None:
    found = [label(0, 9, "positive"), label(20, 29, "negative"), label(40, 49, "surprise"), label(60, 69, "uncertain")]
    coded = [label(0, 9, "AU12"), label(20, 29, "anger"), label(40, 49, "smirk"), label(60, 69, "fear")]
    result = compare(found, coded, fps=FPS, length_s=3.0)
    assert result.score.confusion == {("positive", "positive"): 1, ("negative", "negative"): 1, ("negative", "uncertain"): 1}
    assert result.unmapped == {"smirk": 1}
    assert result.kappa == pytest.approx((2 * 3 - 3) / (9 - 3))
    mapped = compare(found, coded, fps=FPS, length_s=3.0, own={"smirk": "surprise"})
    assert mapped.score.confusion["surprise", "surprise"] == 1 and not mapped.unmapped


def test_faces_are_compared_one_by_one_where_the_codes_name_them() -> None:
    found = [label(0, 9, face=0), label(0, 9, face=1)]
    assert compare(found, [label(0, 9, face=1)], fps=FPS, length_s=1.0).score.fp == 1
    assert compare(found[:1], [label(0, 9, face=1)], fps=FPS, length_s=1.0).score.tp == 0
    assert compare(found[:1], [label(0, 9)], fps=FPS, length_s=1.0).score.tp == 1


def test_kappa_frame_by_frame() -> None:
    """Of 100 frames 20 are positive to both, 10 to the coder alone and 70 to nobody."""
    result = compare([label(0, 19)], [label(0, 29)], fps=FPS, length_s=100 / FPS)
    expected = (20 * 30 + 80 * 70) / 100
    assert result.frame_kappa == pytest.approx((90 - expected) / (100 - expected))
    missed = compare([label(0, 19)], [], fps=FPS, length_s=100 / FPS)
    assert (missed.frame_kappa, missed.kappa, missed.score.precision) == (0.0, None, 0.0)
    nothing = compare([], [], fps=FPS, length_s=1.0)
    assert (nothing.frame_kappa, nothing.score.f1, nothing.as_dict()["errors"]["onset"]) == (None, 0.0, None)


def test_codes_beyond_any_video_take_no_memory() -> None:
    far = [TimedLabel(1e12, 1e12, "fear")]
    assert compare(far, far, fps=FPS, length_s=0.0).frame_kappa is None
    assert compare(far, far, fps=FPS, length_s=10.0).frame_kappa is None, "nothing lies within the video"


def test_events_become_labels_in_a_players_time() -> None:
    event = an_event(4, face=2)
    entries = [Entry.recorded(event, 3.0), Entry.recorded(replace(event, offset=None), 3.0)]
    (only,) = labels_of(entries)
    assert (only.start, only.end, only.apex) == (1.0, pytest.approx(1.4), pytest.approx(1.2))
    assert (only.label, only.face) == ("surprise", 2)


def test_micro_expressions_alone() -> None:
    labels = [label(0, 15), label(0, 16)]
    assert (of_kind(labels, "micro"), of_kind(labels, "macro")) == (labels[:1], labels[1:])
