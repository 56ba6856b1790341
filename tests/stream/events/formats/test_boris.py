from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.exports import EVENTS, HOSTILE, RECORDING, VIDEO, exported, interview_event, reviewed


def project(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content)
    return found


def observation(content: bytes) -> dict[str, Any]:
    (only,) = project(content)["observations"].values()
    assert isinstance(only, dict)
    return only


def states(content: bytes) -> list[tuple[str, str, str, float, float, int, int]]:
    """(subject, behaviour, modifier, start, stop, first frame, last frame): paired as BORIS does, the second of the same
    subject, behaviour and modifier ends what the first began."""
    kinds = {one["code"]: one["type"] for one in project(content)["behaviors_conf"].values()}
    began: dict[tuple[str, str, str], tuple[float, int]] = {}
    found = []
    for t, subject, code, modifier, _, frame in sorted(observation(content)["events"], key=lambda event: event[:3]):
        key = subject, code, modifier
        if kinds[code] == "State event" and key in began:
            start, first = began.pop(key)
            found.append((*key, start, t, first, frame))
        elif kinds[code] == "State event":
            began[key] = t, frame
    assert not began, "BORIS calls these unpaired"
    return found


def test_states_have_start_stop_and_frames() -> None:
    assert [one for one in states(exported("boris")) if one[1] not in ("speech", "blink")] == [
        ("face 0", "surprise", "micro", 1.0, 1.4, 30, 42),
        ("face 0", "positive", "micro", 6.834, 7.334, 205, 220),
        ("face 1", "uncertain", "micro", 7.067, 7.367, 212, 221),
        ("face 0 (2)", "negative", "macro", 7.0, 8.0, 210, 240),
    ]
    assert ("face 0", "speech", "", 5.0, 10.0, 150, 300) in states(exported("boris"))


def test_events_of_one_class_that_overlap_stay_apart() -> None:
    """A state of BORIS ends where it is coded again: on one subject the second would end the first."""
    events = [interview_event(1, 30, 60), interview_event(2, 40, 50)]
    assert [(one[0], one[5], one[6]) for one in states(exported("boris", events, replace(RECORDING, activities=())))] == [
        ("face 0 (2)", 40, 50),
        ("face 0", 30, 60),
    ]


def test_apexes_are_point_events() -> None:
    apexes = [event for event in observation(exported("boris"))["events"] if event[2] == "apex"]
    assert [(t, subject, frame) for t, subject, _, _, _, frame in apexes] == [
        (1.2, "face 0", 36),
        (7.067, "face 0", 212),
        (7.2, "face 1", 216),
        (7.5, "face 0 (2)", 225),
    ]


def test_everything_coded_is_defined() -> None:
    """What BORIS' check of a project's integrity wants."""
    content = exported("boris")
    whole, only = project(content), observation(content)
    behaviours = {one["code"]: one for one in whole["behaviors_conf"].values()}
    assert {event[2] for event in only["events"]} <= behaviours.keys()
    assert {event[1] for event in only["events"]} == {one["name"] for one in whole["subjects_conf"].values()}
    assert {one["category"] for one in behaviours.values()} == set(whole["behavioral_categories"])
    for event in only["events"]:
        sets = behaviours[event[2]]["modifiers"]
        assert event[3] in sets["0"]["values"] if sets else event[3] == ""
    info = only["media_info"]
    assert only["file"]["1"] == [str(VIDEO)]
    expected = {"length": 20.0, "fps": 30.0, "hasVideo": True, "hasAudio": True}
    assert {name: info[name][str(VIDEO)] for name in expected} == expected


def test_stored_events_are_a_live_observation() -> None:
    only = observation(exported("boris", recording=None))
    assert (only["type"], only["file"], only["date"][:16]) == ("LIVE", [], "2026-01-31T08:59")
    assert only["events"][0] == [0.0, "interview face 0", "surprise", "micro", "confidence 0.92; speaking no"]


def test_no_event_gives_a_project_with_classes_and_a_face() -> None:
    content = exported("boris", [], replace(RECORDING, activities=()))
    assert observation(content)["events"] == [] and len(project(content)["behaviors_conf"]) == 5
    assert [one["name"] for one in project(content)["subjects_conf"].values()] == ["face 0"]


def test_hostile_text_stays_text() -> None:
    odd = [replace(EVENTS[0], label=HOSTILE)]
    shown = {one[1] for one in states(exported("boris", odd, replace(RECORDING, activities=())))}
    assert shown == {'<b>&"quoted"</b>\\n]]>\\x1b[2J\\ud800\uffff'}
    (comment,) = (event[4] for event in observation(reviewed("boris"))["events"] if event[4])
    assert comment.startswith("confidence 0.92; speaking no; decision relabelled; action units AU1+AU2; note <b>")
