"""Files and situations from public bug reports of programs like this one, each with what is right."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.types import Event, Face, Frame, Observation
from stream.recorded.analyze import Report, analyze
from stream.recorded.output import Output
from stream.recorded.parts.plan import plan_parts
from stream.recorded.settings import AnalysisSettings, ReadingSettings
from tests import oddities
from tests.oddities import FPS, Base, h264
from tests.parts import shorten_parts
from tests.videos import Picture, write_video

NEAR_S = 0.2
"""How far an onset or offset may lie from that of the base; measured: .1 s at most where nothing is lost."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return oddities.make_base(tmp_path_factory.mktemp("oddities"))


@pytest.fixture(scope="module")
def expected(base: Base) -> tuple[Event, ...]:
    """The events of the base: a micro-expression and one that is under way at five seconds."""
    events = run(base.path).events
    assert [event.label for event in events] == ["negative", "surprise"]
    return events


def run(path: Path) -> Report:
    """Analysed as the command line does."""
    return analyze(path, path.parent / f"{path.name}.results")


def notes(report: Report) -> str:
    return " | ".join([*report.summary["video"]["warnings"], *report.summary["notes"]])


def assert_as(report: Report, expected: Sequence[Event], shift: float = 0.0) -> None:
    """Whether a report is whole and has the events of another one, so much later."""
    assert report.problem is None
    assert [event.label for event in report.events] == [event.label for event in expected]
    for event, other in zip(report.events, expected, strict=True):
        assert event.offset is not None and other.offset is not None
        assert event.onset.t - shift == pytest.approx(other.onset.t, abs=NEAR_S)
        assert event.offset.t - shift == pytest.approx(other.offset.t, abs=NEAR_S)
        assert not event.truncated


def assert_none_across(report: Report, t: float) -> None:
    """Whether no event begins before a moment and ends after it, nor begins with it."""
    for event in report.events:
        assert event.offset is not None
        assert event.offset.t <= t or event.onset.t >= t + 0.1


def test_a_mirror_matrix_shows_the_face_upright(base: Base, expected: tuple[Event, ...]) -> None:
    flipped = h264(base.folder / "flipped.mp4", [np.ascontiguousarray(one[:, ::-1]) for one in base.pictures])
    report = run(oddities.with_matrix(flipped, base.folder / "mirror.mp4", (-1, 0, 0, 1)))
    assert_as(report, expected)
    assert "mirrored" in notes(report)


def as_cover(base: Base) -> Path:
    return oddities.with_tracks(base.folder / "cover.mp4", (base.pictures[:1], True), (base.pictures, False))


def as_thumbnail_in_matroska(base: Base) -> Path:
    return oddities.with_tracks(base.folder / "cover.mkv", (base.pictures[:1], True), (base.pictures, False))


def as_default(base: Base) -> Path:
    small = oddities.resized(base.pictures[:100], 64, 48)
    return oddities.with_tracks(base.folder / "two.mp4", (small, False), (base.pictures, True))


@pytest.mark.parametrize("made", [as_cover, as_thumbnail_in_matroska, as_default])
def test_of_several_tracks_the_default_or_longest_is_read(
    base: Base, expected: tuple[Event, ...], made: Callable[[Base], Path]
) -> None:
    report = run(made(base))
    assert_as(report, expected)
    assert "2 video tracks; number 2 was read" in notes(report)


def ten_hours_later(base: Base) -> Path:
    return oddities.remuxed(base.path, base.folder / "late.mkv", lambda t: t + 36_000)


def a_while_later(base: Base) -> Path:
    return oddities.remuxed(base.path, base.folder / "later.mkv", lambda t: t + 2.5)


def before_zero(base: Base) -> Path:
    times = [number / FPS - 3.77 for number in range(len(base.pictures))]
    apart = {"avoid_negative_ts": "disabled"}
    return h264(base.folder / "early.ts", base.pictures, times=times, options={"bf": "0"}, container_options=apart)


@pytest.mark.parametrize(("made", "start"), [(ten_hours_later, 36_000), (a_while_later, 2.5), (before_zero, -3.77)])
def test_subtitles_count_from_the_first_frame_and_both_clocks_are_written(
    base: Base, expected: tuple[Event, ...], made: Callable[[Base], Path], start: float
) -> None:
    report = run(made(base))
    assert_as(report, expected, shift=start)
    cues = re.findall(r"(\d\d):(\d\d):(\d\d\.\d\d\d) -->", (report.folder / "events.vtt").read_text())
    starts = [3600 * int(hours) + 60 * int(minutes) + float(seconds) for hours, minutes, seconds in cues]
    assert starts == pytest.approx([event.onset.t for event in expected], abs=NEAR_S)
    lines = [json.loads(line) for line in (report.folder / "events.jsonl").read_text().splitlines()]
    with (report.folder / "events.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for line, row, event in zip(lines, rows, report.events, strict=True):
        assert line["onset"]["t"] == float(row["onset_t"]) == pytest.approx(event.onset.t, abs=1e-6)
        assert line["played"]["onset"] == float(row["onset_played"]) == pytest.approx(event.onset.t - start, abs=1e-3)


def five_a_second(base: Base) -> Path:
    return h264(base.folder / "five.mp4", base.pictures[::6], rate=5)


def animated(base: Base) -> Path:
    shown = [base.pictures[int(number * FPS / 10)] for number in range(65)]
    return write_video(base.folder / "animated.gif", shown, rate=10, codec="gif", pix_fmt="rgb8")


@pytest.mark.parametrize("made", [five_a_second, animated])
def test_slow_rates_are_noted_and_give_no_event_of_one_or_two_frames(base: Base, made: Callable[[Base], Path]) -> None:
    report = run(made(base))
    assert "micro-expressions cannot be seen" in notes(report) and "nothing shorter than 3 frames" in notes(report)
    assert "surprise" in [event.label for event in report.events]
    for event in report.events:
        assert event.offset is not None and event.offset.frame - event.onset.frame >= 3


@pytest.mark.parametrize("how", ["24 in 30", "30 in 60", "at random"])
def test_repeated_pictures_change_no_event(base: Base, expected: tuple[Event, ...], how: str) -> None:
    pictures, rate = oddities.repeated(base.pictures, how)
    assert_as(run(h264(base.folder / f"{how}.mp4", pictures, rate=rate)), expected)


def test_pictures_lost_on_the_way_are_counted_and_make_no_event(base: Base) -> None:
    """Twelve pictures lost from a transport stream: what leans on them is smeared up to the next key picture, which jumps."""
    lost = {20, 21, 50, 51, 52, 100, 101, 144, 145, 160, 161, 162}
    source = h264(base.folder / "stream.mp4", base.pictures, options={"bf": "0", "g": "60", "crf": "26"})
    path = oddities.remuxed(source, base.folder / "lost.ts", lambda t: None if round(t * FPS) in lost else t)
    report = run(path)
    video = report.summary["video"]
    assert (video["lost_frames"], video["frames"] + video["lost_frames"]) == (12, len(base.pictures))
    assert video["gaps"] >= 5
    assert "12 pictures missing in 5 places" in notes(report)
    expressions = [(2.8, 3.3), (4.2, 5.4)]
    for event in report.events:
        assert event.offset is not None
        assert any(event.onset.t < end and event.offset.t > start for start, end in expressions), event


def restarting(base: Base) -> Path:
    parts = [base.pictures[:150], base.pictures[150:]]
    return oddities.joined(
        base.folder / "restart.ts",
        *(h264(base.folder / f"part{n}.ts", part, options={"bf": "0"}) for n, part in enumerate(parts)),
    )


def leaping(base: Base) -> Path:
    times = [number / FPS + (36_000 if number >= 150 else 0) for number in range(len(base.pictures))]
    return h264(base.folder / "leap.mkv", base.pictures, options={"bf": "0"}, times=times)


def leaping_in_mp4(base: Base) -> Path:
    times = [number / FPS + (20_000 if number >= 150 else 0) for number in range(len(base.pictures))]
    return h264(base.folder / "leap.mp4", base.pictures, options={"bf": "0"}, times=times)


@pytest.mark.parametrize("made", [restarting, leaping, leaping_in_mp4])
def test_stamps_that_restart_are_a_gap_and_time_goes_on(base: Base, made: Callable[[Base], Path]) -> None:
    report = run(made(base))
    video = report.summary["video"]
    assert report.problem is None
    assert (video["frames"], video["gaps"], len(video["clock_restarts"])) == (len(base.pictures), 1, 1)
    assert video["duration"] == pytest.approx(len(base.pictures) / FPS, abs=0.1)
    assert video["measured_fps"] == pytest.approx(FPS, rel=0.01)
    assert video["expected_frames"] in (None, len(base.pictures))
    assert "time stamps restart at frame 150" in notes(report)
    assert [event.label for event in report.events][:1] == ["negative"]
    assert_none_across(report, 5.0)
    times = [(event.onset.t, event.face) for event in report.events]
    assert times == sorted(times)


def test_of_a_flashing_light_the_lit_pictures_are_used(base: Base, expected: tuple[Event, ...]) -> None:
    report = run(h264(base.folder / "flashing.mp4", oddities.strobed(base.pictures)))
    assert_as(report, expected)
    assert report.summary["video"]["unlit_frames"] >= 90
    assert "dark between the flashes of a light" in notes(report)
    assert "cannot be seen at 15 frames/s" in notes(report)


@pytest.mark.parametrize("start_s", [2.0, 3.5])
def test_no_event_lies_across_the_thaw_of_a_picture_that_stood_still(base: Base, start_s: float) -> None:
    """It goes on in the middle of an expression."""
    report = run(h264(base.folder / "frozen.mp4", oddities.frozen(base.pictures, start_s, 4.7)))
    assert_none_across(report, 4.7)
    assert report.summary["statistics"]["gaps"] == 1


def halved(base: Base) -> Path:
    return after_five_seconds(base, oddities.resized(base.pictures[150:], 160, 120))


def turned_to_portrait(base: Base) -> Path:
    return after_five_seconds(base, [np.ascontiguousarray(one[:, 70:250]) for one in base.pictures[150:]])


def after_five_seconds(base: Base, pictures: Sequence[Picture]) -> Path:
    times = [5 + number / FPS for number in range(len(pictures))]
    first = h264(base.folder / "first.ts", base.pictures[:150], options={"bf": "0"})
    return oddities.joined(
        base.folder / "resized.ts", first, h264(base.folder / "second.ts", pictures, options={"bf": "0"}, times=times)
    )


@pytest.mark.parametrize("made", [halved, turned_to_portrait])
def test_another_size_midway_goes_on_and_makes_no_event(base: Base, made: Callable[[Base], Path]) -> None:
    report = run(made(base))
    assert (report.problem, report.summary["video"]["frames"]) == (None, len(base.pictures))
    assert [event.label for event in report.events][:1] == ["negative"]
    assert_none_across(report, 5.0)
    assert report.summary["statistics"]["faces"] == 1
    assert "the size of the pictures changes 1 time" in notes(report)


@pytest.fixture(scope="module")
def other() -> list[Picture]:
    """Another face, as long as the base."""
    return oddities.pictures_of(oddities.base_spec("astronaut", 2), oddities.FRAMES)


def places(path: Path, part_minutes: float = 20.0) -> tuple[Report, dict[int, list[tuple[float, float]]]]:
    """What came of a video, and where each face was and when: (seconds, x) by id."""
    seen: dict[int, list[tuple[float, float]]] = {}

    class Places(Output):
        def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
            for face in faces:
                seen.setdefault(face.id, []).append((frame.t, float(face.points[:, 0].mean())))

    settings = AnalysisSettings(reading=ReadingSettings(part_minutes=part_minutes))
    return analyze(path, path.parent / f"{path.name}.results", settings, outputs=[Places()]), seen


def test_faces_that_cross_keep_their_ids(base: Base, other: list[Picture]) -> None:
    crossing = oddities.crossing(base.pictures[15:], other[15:], 2.5, 4.5)
    report, seen = places(h264(base.folder / "crossing.mp4", crossing))
    assert len(seen) == 2
    for where in seen.values():
        begins, ends = where[0][1], where[-1][1]
        assert abs(begins - ends) > 250, "an id stays where it was: it went over to the other face"
        assert where[-1][0] == pytest.approx((len(crossing) - 1) / FPS)
    hidden = next(id_ for id_, where in seen.items() if where[0][1] > 320)
    for event in report.events:
        assert event.offset is not None
        assert event.face != hidden or not event.onset.t < 3.5 < event.offset.t


def test_a_face_that_leaves_and_returns_has_its_id_again(base: Base, other: list[Picture]) -> None:
    report, seen = places(h264(base.folder / "leaving.mp4", oddities.leaving(base.pictures, other, 2.0, 5.0)))
    assert len(seen) == 2
    ids = [event.id for event in report.events]
    assert len(set(ids)) == len(ids)
    away = next(where for where in seen.values() if where[0][1] > 320)
    assert {t < 2.1 or t >= 5.0 for t, _ in away} == {True}
    assert away[-1][0] > 6


def test_a_face_that_is_away_where_two_parts_meet_has_its_id_again(
    base: Base, other: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_parts(monkeypatch, warm=0.6, around=0.2, tail=0.5, least=1.0)
    path = h264(base.folder / "parts.mp4", oddities.leaving(base.pictures, other, 2.0, 4.5))
    assert [part.start for part in plan_parts(path, 3.3)[1:]] == pytest.approx([3.3], abs=0.4)
    report, seen = places(path, 3.3 / 60)
    assert report.summary["statistics"]["faces"] == len(seen) == 2
    away = next(where for where in seen.values() if where[0][1] > 320)
    assert {t < 2.1 or t >= 4.5 for t, _ in away} == {True}
    assert (away[0][0], away[-1][0]) == pytest.approx((0.0, (len(base.pictures) - 1) / FPS), abs=0.3)


def test_jpeg_pictures_of_two_kinds_and_a_missing_index_are_read_to_the_end(base: Base, expected: tuple[Event, ...]) -> None:
    mixed = oddities.mixed_mjpeg(base.folder / "mixed.avi", base.pictures[:90], base.pictures[90:])
    whole = run(mixed)
    assert_as(whole, expected)
    assert "no index" not in notes(whole)
    report = run(oddities.without_index(mixed, base.folder / "index.avi"))
    assert report.summary["video"]["frames"] == len(base.pictures)
    assert_as(report, expected)
    assert "the file has no index" in notes(report)


@pytest.fixture(scope="module")
def fields(base: Base) -> list[Picture]:
    """The first three and a half seconds as fields of two moments each, of a head that moves a lot."""
    return oddities.woven(oddities.pictures_of(replace(oddities.base_spec(), fps=60.0, sway_px=24.0, yaw_deg=5.0), 210))


def test_interlaced_pictures_are_made_whole_whether_or_not_the_file_says_so(base: Base, fields: list[Picture]) -> None:
    flagged = run(h264(base.folder / "flagged.mp4", fields, options={"x264-params": "tff=1"}))
    assert "105 pictures interlaced; they were deinterlaced" in notes(flagged)
    silent = run(h264(base.folder / "silent.mp4", fields, options={"crf": "8"}))
    assert "interlaced, though not flagged as such; they were deinterlaced" in notes(silent)


@pytest.mark.parametrize(("width", "aspect"), [(342, "15/16"), (226, "64/45")])
def test_pixels_are_made_square(base: Base, expected: tuple[Event, ...], width: int, aspect: str) -> None:
    pictures = oddities.resized(base.pictures, width, oddities.SIZE[1])
    report = run(h264(base.folder / f"{width}.mp4", pictures, options={"x264-params": f"sar={aspect}"}))
    assert_as(report, expected)
    video = report.summary["video"]
    assert video["width"] / video["height"] == pytest.approx(width * float(Fraction(aspect)) / 240, abs=0.02)
    assert "not square" in notes(report)


def in_hlg(base: Base) -> Path:
    transfer = "log-level=none:transfer=arib-std-b67:colorprim=bt2020:colormatrix=bt2020nc"
    options = {"preset": "ultrafast", "crf": "18", "x265-params": transfer}
    return write_video(base.folder / "hlg.mp4", base.pictures, codec="libx265", pix_fmt="yuv420p10le", options=options)


def on_its_side(base: Base) -> Path:
    turned = [np.ascontiguousarray(np.rot90(picture, -1)) for picture in base.pictures]
    return h264(base.folder / "side.mp4", turned, rotation=90)


@pytest.mark.parametrize("made", [in_hlg, on_its_side])
def test_phones_files_give_the_same_events(base: Base, expected: tuple[Event, ...], made: Callable[[Base], Path]) -> None:
    assert_as(run(made(base)), expected)


def test_a_browsers_recording_without_a_duration_is_whole(base: Base, expected: tuple[Event, ...]) -> None:
    options = {"deadline": "realtime", "cpu-used": "8", "b": "1M"}
    source = write_video(base.folder / "recorded.webm", base.pictures, codec="libvpx", options=options)
    report = run(oddities.without_duration(source, base.folder / "browser.webm"))
    with av.open(str(report.path)) as container:
        assert container.duration is None
    assert_as(report, expected)
    assert report.summary["video"]["expected_frames"] is None
