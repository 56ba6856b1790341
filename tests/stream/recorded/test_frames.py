from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from engine.registration.regions import REGION_NAMES
from engine.types import Activity, ActivityKind, Crop, Frame, Mark, Observation
from stream.recorded.analyze import analyze
from stream.recorded.frames import COLUMNS, HELD_S, MOTION, FrameTable
from tests.videos import stepping, write_video

FPS = 25


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "frames.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def frame_at(index: int, start: float = 0.0) -> Frame:
    return Frame(index, round(start + index / FPS, 6), np.zeros((2, 2), np.uint8), "grey")


def crop_at(mark: Mark) -> Crop:
    """A crop of the face enlarged twice and turned by a right angle, whose motion is 0, 1, 2 ... over regions and axes."""
    motion = np.arange(2 * len(REGION_NAMES), dtype=np.float32).reshape(-1, 2)
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[454] = 100, 0, 100  # the right edge of the face is as far behind the left one as beside it
    landmarks[2] = 0, 80, 0
    turn = np.array([-20 * np.radians(3), 20 * np.radians(4), 0, 0], np.float32)
    transform = np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]])
    found = np.full(len(REGION_NAMES), 0.75, np.float32)
    return Crop(0, mark, np.zeros((128, 128), np.uint8), transform, landmarks, motion, 0.31, turn, 0.25, 0, found=found)


def observed(frame: Frame, doing: dict[ActivityKind, float] | None = None, face: int = 0) -> Observation:
    """A registered face whose loudness was measured two frames ago and is the number of that frame."""
    mark, late = Mark(frame.index, frame.t), frame.index - 2
    measured = None if late < 0 else round(frame.t - 2 / FPS, 6)
    return Observation(face, mark, (10, 20, 30, 40), crop_at(mark), float(late), 0.5, doing or {}, measured)


def test_each_frame_of_a_rendered_face_has_a_row(rendered_clip: Path, tmp_path: Path) -> None:
    analyze(rendered_clip, tmp_path, outputs=[FrameTable(tmp_path)])
    rows = rows_of(tmp_path)
    assert [int(row["frame"]) for row in rows] == list(range(240))
    assert tuple(rows[0]) == COLUMNS
    assert {(row["face"], row["success"]) for row in rows} == {("0", "1")}
    assert np.median([float(row["found"]) for row in rows]) > 0.9
    assert np.median([float(row["presence"]) for row in rows]) > 5
    assert np.median([float(row["residual"]) for row in rows]) < 0.5
    assert all(abs(float(row[name])) < 20 for row in rows for name in ("yaw", "pitch", "roll"))
    loud = {int(row["frame"]): float(row["loudness"]) for row in rows if row["loudness"]}
    assert sorted(loud) == list(range(238))
    truth = json.loads(rendered_clip.with_suffix(".truth.json").read_text())["events"]
    for event in truth:
        assert max(loud[number] for number in range(event["onset_frame"], event["offset_frame"])) > 1.5
    activities = [json.loads(line) for line in (tmp_path / "activity.jsonl").read_text().splitlines()]
    blinks = [one for one in activities if one["kind"] == "blink"]
    assert blinks
    for row in rows:
        within = any(one["start"]["t"] <= float(row["t"]) <= one["end"]["t"] for one in blinks)
        assert row["blink"] == "01"[within]


def test_a_frame_without_a_face_has_a_row_of_empty_cells(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 5))
    analyze(video, tmp_path / "out", outputs=[FrameTable(tmp_path / "out")])
    rows = rows_of(tmp_path / "out")
    assert [(row["frame"], row["face"], row["success"]) for row in rows] == [(str(k), "", "0") for k in range(5)]
    assert all(row[name] == "" for row in rows for name in COLUMNS[5:])


def test_the_cells_of_a_face(tmp_path: Path) -> None:
    table = FrameTable(tmp_path)
    frame = replace(frame_at(3, start=36_000.0), voice=0.5)
    table.frame(frame, [], [observed(frame), replace(observed(frame), face=4, crop=None)], 35_999.0)
    table.finish({})
    table.close()
    row, other = rows_of(tmp_path)
    expected = {"frame": "3", "t": "36000.120000", "played": "1.120000", "face": "0", "success": "1", "voice": "0.50"}
    expected |= {"box_x": "10.00", "box_y": "20.00", "box_width": "30.00", "box_height": "40.00", "speaking": "0"}
    expected |= {
        "repeated": "0",
        "mesh_age": "0.000",
        "presence": "",
        "found": "0.750",
        "residual": "0.250",
        "scale": "2.00000",
    }
    expected |= {"yaw": "45.00", "roll": "90.00", "yaw_change": "3.00", "pitch_change": "-4.00", "eye_opening": "0.3100"}
    assert {name: row[name] for name in expected} == expected
    assert [float(row[name]) for name in MOTION] == list(range(30))
    assert MOTION[:2] == ("brow_outer_left_x", "brow_outer_left_y")
    assert (other["face"], other["success"], other["box_width"], other["speaking"]) == ("4", "0", "30.00", "0")
    assert all(other[name] == "" for name in COLUMNS[COLUMNS.index("loudness") :])


def test_loudness_is_that_of_the_frame_it_was_measured_for(tmp_path: Path) -> None:
    table = FrameTable(tmp_path)
    for index in range(10):
        frame = frame_at(index)
        table.frame(frame, [], [observed(frame)], 0.0)
    table.finish({})
    table.close()
    assert [row["loudness"] for row in rows_of(tmp_path)] == [f"{k}.000" for k in range(8)] + ["", ""]


def test_a_measurement_after_a_gap_is_not_that_of_the_frames_before(tmp_path: Path) -> None:
    table = FrameTable(tmp_path)
    for frame in [frame_at(index) for index in range(4)] + [frame_at(index, start=2.0) for index in range(4, 8)]:
        table.frame(frame, [], [observed(frame)], 0.0)
    table.finish({})
    table.close()
    expected = ["0.000", "1.000", "", "", "4.000", "5.000", "", ""]
    assert [row["loudness"] for row in rows_of(tmp_path)] == expected


def test_speech_that_is_noticed_late_is_in_the_rows_from_its_start_to_its_end(tmp_path: Path) -> None:
    table = FrameTable(tmp_path)
    for index in range(200):
        frame = frame_at(index)
        speaks: dict[ActivityKind, float] = {"speech": 20 / FPS} if 40 <= index < 80 else {}
        table.frame(frame, [], [observed(frame, speaks), observed(frame, face=1)], 0.0)
        if index == 80:
            table.activity(Activity(0, "speech", Mark(20, 20 / FPS), Mark(60, 60 / FPS)), 0.0)
    table.finish({})
    table.close()
    rows = rows_of(tmp_path)
    assert [int(row["frame"]) for row in rows if row["speaking"] == "1"] == list(range(20, 61))
    assert {row["face"] for row in rows if row["speaking"] == "1"} == {"0"}


def test_no_row_is_written_between_the_end_of_speech_and_the_report_of_it(tmp_path: Path) -> None:
    """The frame in which speech is found to be over comes before the activity, when rows of its middle are due."""
    table = FrameTable(tmp_path)
    for index in range(300):
        frame = frame_at(index)
        table.frame(frame, [], [observed(frame, {"speech": 20 / FPS} if 20 <= index < 200 else {})], 0.0)
        if index == 200:
            table.activity(Activity(0, "speech", Mark(20, 20 / FPS), Mark(199, 199 / FPS)), 0.0)
    table.finish({})
    table.close()
    assert [int(row["frame"]) for row in rows_of(tmp_path) if row["speaking"] == "1"] == list(range(20, 200))


def test_speech_that_goes_on_is_written_while_it_is_open(tmp_path: Path) -> None:
    table = FrameTable(tmp_path)
    for index in range(250):
        frame = frame_at(index)
        table.frame(frame, [], [observed(frame, {"speech": 20 / FPS} if index >= 40 else {})], 0.0)
    written = rows_of(tmp_path)
    assert len(written) == pytest.approx(250 - HELD_S * FPS, abs=1)
    assert [row["speaking"] for row in written] == ["0"] * 20 + ["1"] * (len(written) - 20)
    table.close()


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """/dev/full takes no byte: a full disk on every machine."""
    (tmp_path / "frames.csv").symlink_to("/dev/full")
    table = FrameTable(tmp_path)
    with pytest.raises(OutputError, match=r"frames\.csv cannot be written: no space left on device"):
        table.frame(frame_at(0), [], [], 0.0)
    table.close()
