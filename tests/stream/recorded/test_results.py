from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.types import Activity, Mark
from stream.recorded.results import read_results
from tests.events import an_event
from tests.review import events_at, write_results


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    events = events_at([10, 40], start=100.0)
    results = read_results(write_results(tmp_path / "r", events, origin=99.5))
    assert [entry.event for entry in results.entries] == [event.__class__.from_dict(event.as_dict()) for event in events]
    assert results.origin == pytest.approx(99.5)
    assert results.entries[0].fields["played"]["onset"] == pytest.approx(10 / 30 + 0.5, abs=1e-6)
    assert (results.stream, results.video) == ("interview", tmp_path / "r" / "interview.mp4")


def test_without_events_the_clock_of_a_player_starts_at_the_first_picture(tmp_path: Path) -> None:
    assert read_results(write_results(tmp_path, [], origin=7.0)).origin == 7.0


def test_a_line_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    write_results(tmp_path, [an_event(1), an_event(2)])
    path = tmp_path / "events.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [entry.event.id for entry in read_results(tmp_path).entries] == ["lobby-1"]


def test_a_folder_without_results_and_damage_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no summary\.json: the folder of one video"):
        read_results(tmp_path)
    write_results(tmp_path / "inside" / "interview", [])
    with pytest.raises(InputError, match=f"such as {tmp_path / 'inside' / 'interview'}$"):
        read_results(tmp_path / "inside")
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        read_results(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"no events\.jsonl"):
        read_results(tmp_path)
    for damage in ("{\n", "[]\n", '{"onset": 3}\n', json.dumps({**an_event(1).as_dict(), "onset": None}) + "\n"):
        (tmp_path / "events.jsonl").write_text(damage)
        with pytest.raises(InputError, match="line 1 is no"):
            read_results(tmp_path)


def test_the_recording_is_what_summary_and_activities_say(tmp_path: Path) -> None:
    write_results(tmp_path, events_at([10]), origin=99.5)
    speech = Activity(0, "speech", Mark(3, 100.0), Mark(9, 100.3))
    (tmp_path / "activity.jsonl").write_text(json.dumps(speech.as_dict("interview")) + "\n")
    facts = {"end": 109.0, "measured_fps": 25.0, "sound": True}
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "video": facts}))
    found = read_results(tmp_path).recording("anna")
    assert (found.path, found.coder, found.sound, found.fps) == (tmp_path / "interview.mp4", "anna", True, 25.0)
    assert (found.origin, found.length_s) == (pytest.approx(99.5), pytest.approx(9.54))
    assert found.activities == [speech]
    (tmp_path / "activity.jsonl").unlink()
    assert read_results(tmp_path).recording().activities == []


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nosuch: the folder of one video's results"):
        read_results(tmp_path / "nosuch")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file: the folder of one video's results"):
        read_results(tmp_path / "file")
