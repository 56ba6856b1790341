from __future__ import annotations

import numpy as np

from engine.types import Activity, Crop, Mark, Observation
from stream.recorded.annotated.findings import Findings, Spans
from tests.events import an_event, evidence

FPS = 30.0


def seen(t: float, loudness: float, face: int = 0, *, registered: bool = True) -> Observation:
    mark = Mark(round(t * FPS), t)
    crop = Crop(
        face=face,
        mark=mark,
        pixels=np.zeros((128, 128), np.uint8),
        transform=np.eye(2, 3),
        landmarks=np.zeros((478, 3), np.float32),
        motion=np.zeros((15, 2), np.float32),
        eye_opening=0.3,
        turn=np.zeros(4, np.float32),
        residual=0.0,
        anchor=0,
    )
    return Observation(face, mark, (0, 0, 1, 1), crop if registered else None, loudness, 0.0, {}, t)


def measured(findings: Findings, times: np.ndarray, face: int = 0) -> None:
    for t in times.tolist():
        findings.observe(seen(t, 10 * t, face))


def test_spans_at_a_moment() -> None:
    spans: Spans[str] = Spans()
    for start, end in ((5, 6), (0, 1), (0.5, 9), (2, 3)):
        spans.add(start, end, f"{start}-{end}")
    assert spans.between(2.5, 2.5) == ["0.5-9", "2-3"]
    assert spans.between(1, 2) == ["0-1", "0.5-9", "2-3"]
    assert spans.between(9.5, 20) == []


def test_a_curve_is_cut_where_nothing_was_measured() -> None:
    findings = Findings()
    measured(findings, np.r_[np.arange(0, 1, 1 / FPS), np.arange(2, 3, 1 / FPS)])
    first, second = findings.curve(0, 0.5, 2.5)
    assert first[0, 0] < 0.5 and first[-1, 0] == 29 / FPS
    assert second[0].tolist() == [2.0, 20.0]
    assert second[-1, 0] > 2.5
    assert [len(piece) for piece in findings.curve(7, 0, 10)] == [0]


def test_what_was_measured_last_is_kept_once() -> None:
    findings = Findings()
    for _ in range(3):
        findings.observe(seen(1.0, 2.0))
    findings.observe(seen(1.1, 2.0, registered=False))
    (curve,) = findings.curve(0, 0, 5)
    assert curve.tolist() == [[1.0, 2.0]]


def test_faces_seen_only_in_passing_have_no_curve() -> None:
    findings = Findings()
    measured(findings, np.arange(0, 2, 1 / FPS), face=4)
    measured(findings, np.arange(0, 9, 1 / FPS), face=1)
    measured(findings, np.arange(0, 0.2, 1 / FPS), face=2)
    assert findings.faces(3) == [1, 4]
    findings.add_event(an_event(1, face=2))
    assert findings.faces(3) == [1, 2, 4]
    assert findings.faces(1) == [1]


def test_events_and_activities_are_those_of_the_face() -> None:
    findings = Findings()
    event, speech = an_event(1, face=2, evidence=evidence()), Activity(2, "speech", Mark(0, 0.0), Mark(90, 3.0))
    findings.add_event(event)
    findings.add_activity(speech)
    assert findings.events(2, 1.1, 1.1) == [event] and findings.events(2, 1.1, 1.1)[0].evidence is None
    assert findings.events(2, 2.0, 3.0) == findings.events(0, 1.1, 1.1) == []
    assert findings.activities(2, 3.0, 4.0) == [speech]
    assert findings.activities(1, 3.0, 4.0) == []
