from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import OutputError
from engine.types import Frame
from stream.recorded.analyze import analyze
from stream.recorded.report.output import SHOWN_FACES, ReportPage
from stream.recorded.report.page import page
from tests.reports import event_of, summary_of, write_report
from tests.videos import stepping, write_video

GREY = np.zeros((2, 2), np.uint8)


def held(report: Path, name: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', report.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def shown(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(held(report, "summary"))
    return found


def lines(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in held(report, "events").splitlines()]


@pytest.fixture(scope="module")
def analysed(rendered_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a clip of three expressions, with pictures."""
    folder = tmp_path_factory.mktemp("results") / "clip"
    analyze(rendered_clip, folder, outputs=[ReportPage(folder, rendered_clip, pictures=True)])
    return folder


def test_the_report_has_the_events_of_the_files(analysed: Path) -> None:
    events = [json.loads(line) for line in (analysed / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert events, "a clip of three expressions gave no event at all"
    found = lines(analysed / "report.html")
    assert [{name: event[name] for name in events[0]} for event in found] == events
    for event in found:
        curve = dict(zip(event["curve"]["t"], event["curve"]["px"], strict=True))
        at = {name: curve[round(event["played"][name], 3)] for name in ("onset", "apex")}
        assert at["onset"] == pytest.approx(0, abs=0.01)
        assert at["apex"] > 0.5 * max(curve.values())
        assert max(np.hypot(u, v) for u, v in event["moved"]) == pytest.approx(at["apex"], abs=0.02)


def test_a_rendered_face_is_seen_all_the_time(analysed: Path) -> None:
    found = shown(analysed / "report.html")
    assert (found["from"], found["to"]) == pytest.approx((0.0, 239 / 30), abs=0.01)
    (face,) = found["faces"]
    assert found["seen"]["present"] == face["seen"]["present"] == pytest.approx(239 / 30, abs=0.15)
    assert face["seen"]["watched"] > 0.9 * face["seen"]["present"]
    assert (found["complete"], found["problem"], found["slow"], found["others"]) == (True, None, [], 0)


def test_the_pictures_are_those_of_the_registered_face(analysed: Path) -> None:
    report = analysed / "report.html"
    for number, event in enumerate(lines(report)):
        strip, flow = map(base64.b64decode, held(report, f"pictures-{number}").split("\n"))
        assert strip[8:12] == flow[8:12] == b"WEBP"
        assert 2 <= event["pictures"] <= 5
        assert len(strip) + len(flow) < 9_000


def test_no_picture_of_a_face_is_stored_unless_asked_for(tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 3)
    assert {event["pictures"] for event in lines(report)} == {0}
    assert "pictures-0" not in report.read_text() and "UklGR" not in report.read_text()  # no WebP in base64


def test_nothing_is_left_beside_the_report(tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 3, pictures=True)
    assert list(report.parent.iterdir()) == [report]


@pytest.mark.parametrize("name", ["interview 1.mp4", "50 % #1?.mp4", "gespräch.mov", "a:b.mkv"])
def test_the_video_is_linked_from_the_folder_of_results(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "one"
    report = write_report(folder, 1, video=tmp_path / name)
    link = shown(report)["link"]
    assert re.fullmatch(r"[\w./%~-]+", link)
    assert (folder / os.fsdecode(_unquoted(link))).resolve() == (tmp_path / name).resolve()


def _unquoted(link: str) -> bytes:
    return re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), link.encode())


def test_what_can_be_read_only_once_is_not_linked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ts")
    output = ReportPage(tmp_path, tmp_path / "pipe.ts")
    output.frame(Frame(0, 0.0, GREY, "grey"), [], [], 0.0)
    output.finish(summary_of([], 1, 25.0))
    output.close()
    assert shown(tmp_path / "report.html")["link"] is None


def test_times_are_those_of_a_player(tmp_path: Path) -> None:
    """A video whose stamps begin at ten hours."""
    origin = 36_000.0
    output = ReportPage(tmp_path, tmp_path / "late.ts")
    for index in range(50):
        output.frame(Frame(index, origin + index / 25, GREY, "grey"), [], [], origin)
    output.finish(summary_of([], 50, 25.0))
    output.close()
    found = shown(tmp_path / "report.html")
    assert (found["from"], found["to"]) == (0.0, 1.96)


def test_faces_seen_for_a_moment_are_only_counted(tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 0, seconds=0.4, faces=3)
    assert (shown(report)["faces"], shown(report)["others"]) == ([], 3)


def test_of_a_crowd_those_with_the_most_events_are_shown(tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 80, seconds=2.0, faces=70)
    found = shown(report)
    assert len(found["faces"]) == SHOWN_FACES and found["others"] == 10
    assert {face["id"] for face in found["faces"]} >= set(range(10)), "the ten with two events are shown"
    assert len(lines(report)) == 80


def test_a_report_of_an_earlier_analysis_is_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("of an earlier analysis")
    output = ReportPage(tmp_path, tmp_path / "a.mp4")
    output.frame(Frame(0, 0.0, GREY, "grey"), [], [], 0.0)
    output.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_analysis_has_a_report_that_says_so(tmp_path: Path) -> None:
    report = write_report(tmp_path / "out", 2, complete=False, problem="a.mp4: stopped by the user; 2 events kept in out")
    assert shown(report)["problem"] == "a.mp4: stopped by the user; 2 events kept in out"


def test_a_video_without_a_face_has_a_report(tmp_path: Path) -> None:
    video = write_video(tmp_path / "faceless.mp4", stepping(320, 240, 30))
    analyze(video, tmp_path / "out", outputs=[ReportPage(tmp_path / "out", video)])
    assert shown(tmp_path / "out" / "report.html")["faces"] == []


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = ReportPage(tmp_path, tmp_path / "a.mp4")
    output.frame(Frame(0, 0.0, GREY, "grey"), [], [], 0.0)
    output.event(event_of(0, 1.0, 1, 25.0, None), 0.0)

    def full(*_: object) -> object:
        yield from page("a", {}, [], [])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stream.recorded.report.output.page", full)
    with pytest.raises(OutputError, match=r"report\.html cannot be written: no space left on device"):
        output.finish(summary_of([], 1, 25.0))
    output.close()
    assert list(tmp_path.iterdir()) == []
