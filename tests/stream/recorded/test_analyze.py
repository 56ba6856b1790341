from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from engine import Pipeline
from engine.errors import ConfigError, OutputError, SourceError, WeightsError
from engine.types import Activity, Event, Face, Frame, Observation
from stream.recorded.analyze import Report, analyze, found_in
from stream.recorded.frames import FrameTable
from stream.recorded.output import Output
from stream.recorded.report.output import ReportPage
from stream.recorded.settings import AnalysisSettings, ReadingSettings
from stream.sources.file import open_video
from tests.parts import shorten_parts
from tests.videos import stepping, write_video


def events_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def summary_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def faceless(tmp_path: Path) -> Path:
    return write_video(tmp_path / "faceless.mp4", stepping(320, 240, 90), container_options={"movflags": "faststart"})


class Noted(Output):
    """Notes what an analysis hands over, and in which order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.observations: list[tuple[int, list[int], list[Observation]]] = []
        self.events: list[Event] = []
        self.activities: list[Activity] = []
        self.origins: set[float] = set()
        self.summary: dict[str, Any] = {}

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        self.calls.append("frame")
        self.origins.add(origin)
        self.observations.append((frame.index, [face.id for face in faces], list(observations)))

    def event(self, event: Event, origin: float) -> None:
        self.origins.add(origin)
        self.events.append(event)

    def activity(self, activity: Activity, origin: float) -> None:
        self.origins.add(origin)
        self.activities.append(activity)

    def finish(self, summary: dict[str, Any]) -> None:
        self.calls.append("finish")
        self.summary = summary

    def close(self) -> None:
        self.calls.append("close")


@dataclass(frozen=True)
class Analysed:
    """A clip of three expressions, analysed once with an output."""

    report: Report
    noted: Noted
    folder: Path


@pytest.fixture(scope="module")
def analysed(rendered_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    folder, noted = tmp_path_factory.mktemp("analysed") / "out", Noted()
    return Analysed(analyze(rendered_clip, folder, stream="lobby", outputs=[noted]), noted, folder)


def test_the_events_are_those_of_feeding_frame_by_frame(rendered_clip: Path, analysed: Analysed) -> None:
    pipeline = Pipeline.from_config(None, stream="lobby")
    with open_video(rendered_clip) as source:
        fed = [event for frame in source for event in pipeline.feed(frame)]
    fed += pipeline.flush()
    pipeline.close()
    final = [event.as_dict() for event in fed if event.state == "final"]
    assert final, "a clip of three expressions gave no event at all"
    assert [event.as_dict() for event in analysed.report.events] == final
    for event, written in zip(final, events_in(analysed.folder), strict=True):
        played = {name: event[name]["t"] for name in ("onset", "apex", "offset")}
        assert written == event | {"played": played}


def test_the_files_agree(analysed: Analysed) -> None:
    report, folder = analysed.report, analysed.folder
    summary = summary_in(folder)
    assert report.problem is None
    assert (summary["complete"], summary["problem"], summary["stream"]) == (True, None, "lobby")
    assert summary["events"]["count"] == len(report.events) == len(events_in(folder))
    assert summary["video"]["frames"] == 240
    assert summary["model"] == report.events[0].model
    assert report.timing["frames_per_s"] > 0
    assert {event.stream for event in report.events} == {"lobby"}
    assert (folder / "events.vtt").read_text().count("-->") == len(report.events)
    assert len((folder / "events.csv").read_text().splitlines()) == 1 + len(report.events)


def test_no_face_is_no_event_and_no_problem(faceless: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, int]] = []
    report = analyze(faceless, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert (report.events, report.problem) == ((), None)
    assert seen == [(n, 90, 0) for n in range(1, 91)]
    assert summary_in(tmp_path / "out")["complete"] is True


def test_an_output_takes_all_that_is_found(analysed: Analysed) -> None:
    noted, report = analysed.noted, analysed.report
    assert noted.calls == ["frame"] * 240 + ["finish", "close"]
    assert [(index, ids) for index, ids, _ in noted.observations] == [(index, [0]) for index in range(240)]
    assert all([one.face for one in found] == ids for _, ids, found in noted.observations)
    assert all(one.mark.frame == index for index, _, found in noted.observations for one in found)
    assert noted.events == list(report.events)
    assert all(event.evidence is not None for event in noted.events)
    assert [one.as_dict("lobby") | {"played": ANY} for one in noted.activities] == [
        json.loads(line) for line in (analysed.folder / "activity.jsonl").read_text().splitlines()
    ]
    assert noted.origins == {0.0}
    assert noted.summary == report.summary


def test_an_output_that_fails_ends_the_run_and_all_are_closed(faceless: Path, tmp_path: Path) -> None:
    class Full(Noted):
        def finish(self, summary: dict[str, Any]) -> None:
            assert summary_in(tmp_path / "out")["complete"] is False
            raise OutputError("report.html cannot be written: no space left on device")

    full, after = Full(), Noted()
    with pytest.raises(OutputError, match="no space left"):
        analyze(faceless, tmp_path / "out", outputs=[full, after])
    assert (full.calls[-1], after.calls[-1]) == ("close", "close")
    assert "finish" not in after.calls
    assert summary_in(tmp_path / "out")["problem"] == "report.html cannot be written: no space left on device"


def test_outputs_are_closed_where_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    noted = Noted()
    with pytest.raises(SourceError):
        analyze(tmp_path / "text.mp4", tmp_path / "out", outputs=[noted])
    assert noted.calls == ["close"]


@pytest.mark.parametrize("size", [(16, 16), (2, 2), (4096, 2304)])
def test_frames_of_every_size_are_analysed(size: tuple[int, int], tmp_path: Path) -> None:
    codec, pix_fmt = ("libx264", "yuv420p") if size[0] > 2 else ("ffv1", "bgra")
    path = write_video(tmp_path / "clip.mkv", stepping(*size, 4), codec=codec, pix_fmt=pix_fmt)
    report = analyze(path, tmp_path / "out")
    assert (report.problem, report.summary["video"]["frames"]) == (None, 4)


def test_neither_outputs_nor_small_queues_change_the_events(rendered_clip: Path, analysed: Analysed, tmp_path: Path) -> None:
    narrow = AnalysisSettings(reading=ReadingSettings(decode_threads=1, queued_frames=1))
    assert analyze(rendered_clip, tmp_path, narrow, stream="lobby").events == analysed.report.events


def test_stopping_keeps_what_was_found(faceless: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    threads = threading.active_count()

    def progress(done: int, expected: int | None, events: int) -> None:
        if done == 30:
            stop.set()

    report = analyze(faceless, tmp_path / "out", progress=progress, stop=stop)
    assert report.problem == f"{faceless}: stopped by the user; 0 events kept in {tmp_path / 'out'}"
    assert threading.active_count() <= threads
    summary = summary_in(tmp_path / "out")
    assert summary["complete"] is False
    assert 30 <= summary["video"]["frames"] < 90


def test_an_expression_still_open_at_a_stop_is_kept_as_truncated(rendered_clip: Path, tmp_path: Path) -> None:
    """Stopped at any apex of the truth, the analysis leaves what flushing the pipeline there gives."""
    truth = json.loads(rendered_clip.with_suffix(".truth.json").read_text())
    last = truth["events"][-1]["apex_frame"] + 4
    stop = threading.Event()
    report = analyze(rendered_clip, tmp_path / "out", progress=lambda done, *_: stop.set() if done == last else None, stop=stop)
    pipeline = Pipeline.from_config(None, stream="clip")
    with open_video(rendered_clip) as source:
        fed = [event for frame, _ in zip(source, range(last), strict=False) for event in pipeline.feed(frame)]
    fed += pipeline.flush()
    pipeline.close()
    assert [event.as_dict() for event in report.events] == [event.as_dict() for event in fed if event.state == "final"]


def test_a_truncated_file_is_analysed_as_far_as_it_goes(tmp_path: Path) -> None:
    noisy = write_video(tmp_path / "long.mp4", stepping(320, 240, 120), container_options={"movflags": "faststart"})
    data = noisy.read_bytes()
    noisy.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    report = analyze(noisy, tmp_path / "out")
    assert report.problem is not None
    assert "long.mp4" in report.problem
    summary = summary_in(tmp_path / "out")
    assert (summary["complete"], summary["problem"]) == (False, report.problem)
    assert 0 < summary["video"]["frames"] < 120


def test_an_unreadable_file_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(SourceError):
        analyze(tmp_path / "text.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_run_in_one_sentence(rendered_clip: Path, tmp_path: Path) -> None:
    """/dev/full takes no byte: a full disk on every machine."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.jsonl").symlink_to("/dev/full")
    threads = threading.active_count()
    with pytest.raises(OutputError, match=r"events\.jsonl cannot be written: no space left on device"):
        analyze(rendered_clip, out)
    assert threading.active_count() <= threads
    assert summary_in(out)["complete"] is False


def test_a_pipeline_that_cannot_be_created_is_reported_and_the_summary_incomplete(faceless: Path, tmp_path: Path) -> None:
    missing = AnalysisSettings.model_validate({"pipeline": {"recognizer": {"weights": str(tmp_path / "none.onnx")}}})
    with pytest.raises((WeightsError, ConfigError), match=r"none\.onnx"):
        analyze(faceless, tmp_path / "out", missing)
    assert summary_in(tmp_path / "out")["complete"] is False


@pytest.mark.data
def test_a_real_video_without_a_face(data_dir: Path, tmp_path: Path) -> None:
    report = analyze(data_dir / "media" / "no_face.mp4", tmp_path / "out")
    assert (report.events, report.problem) == ((), None)


@pytest.mark.data
def test_a_hand_before_a_real_face_and_a_head_that_turns_are_named_as_reasons(data_dir: Path, tmp_path: Path) -> None:
    report = analyze(data_dir / "media" / "WolfgangLanger_Pexels.mp4", tmp_path / "out")
    hand = [event for event in report.events if event.onset.t < 5]
    laugh = [event for event in report.events if event.onset.t > 18]
    assert {(event.label, event.why) for event in hand} == {("uncertain", "covered")}
    assert {(event.label, event.why) for event in laugh} == {("uncertain", "turned away")}


@pytest.mark.data
def test_a_real_video_keeps_its_events_when_its_end_is_lost(data_dir: Path, tmp_path: Path) -> None:
    """The events of the first half of a real video come out the same when the second half of the file is missing."""
    import av

    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(data_dir / "media" / "WolfgangLanger_Pexels.mp4")) as original,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    half = Path(shutil.copy(whole, tmp_path / "half.mp4"))
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    of_whole, of_half = analyze(whole, tmp_path / "w", stream="x"), analyze(half, tmp_path / "h", stream="x")
    assert of_half.problem is not None
    end = of_half.summary["video"]["end"]
    kept = [event for event in of_half.events if not event.truncated]
    assert kept == [event for event in of_whole.events if event.offset is not None and event.offset.t < end][: len(kept)]


def test_a_video_in_parts_gives_the_results_of_the_whole(
    rendered_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_parts(monkeypatch, warm=2.0, around=0.5, tail=1.5, least=3.0)
    seen: list[int] = []
    reports = [
        analyze(
            rendered_clip,
            tmp_path / name,
            AnalysisSettings(reading=ReadingSettings(part_minutes=minutes)),
            progress=lambda done, expected, events: seen.append(done),
            outputs=[FrameTable(tmp_path / name), ReportPage(tmp_path / name, rendered_clip, pictures=True)],
        )
        for name, minutes in (("whole", 0.0), ("parts", 4 / 60))
    ]
    whole, parts = reports
    assert seen == [*range(1, 241), *range(1, 241)]
    assert [event.label for event in parts.events] == [event.label for event in whole.events]
    for one, other in zip(whole.events, parts.events, strict=True):
        assert (other.id, other.face) == (one.id, one.face)
        assert abs(other.onset.frame - one.onset.frame) <= 1
        assert abs(other.apex.frame - one.apex.frame) <= 1
    assert parts.summary["video"] == whole.summary["video"]
    counted = ("frames", "frames_with_face", "repeated", "gaps", "final", "faces")
    assert [parts.summary["statistics"][name] for name in counted] == [whole.summary["statistics"][name] for name in counted]
    tables = [(tmp_path / name / "frames.csv").read_text().splitlines() for name in ("whole", "parts")]
    assert [row.split(",")[:4] for row in tables[0]] == [row.split(",")[:4] for row in tables[1]]
    sizes = [(tmp_path / name / "report.html").stat().st_size for name in ("whole", "parts")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_a_video_in_parts_is_the_same_each_time(rendered_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=2.0, around=0.5, tail=1.5, least=3.0)
    settings = AnalysisSettings(reading=ReadingSettings(part_minutes=4 / 60))
    with found_in(rendered_clip, settings, "clip", stop=threading.Event(), faces=False) as steps:
        kept = list(steps)
    for name, given in (("here", None), ("elsewhere", kept)):
        analyze(rendered_clip, tmp_path / name, settings, steps=given)
    files = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == files


def test_stopping_in_the_first_part_starts_no_other(
    rendered_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_parts(monkeypatch, warm=2.0, around=0.5, tail=1.5, least=3.0)
    stop = threading.Event()
    report = analyze(
        rendered_clip,
        tmp_path / "out",
        AnalysisSettings(reading=ReadingSettings(part_minutes=4 / 60)),
        progress=lambda done, expected, events: stop.set() if done == 30 else None,
        stop=stop,
    )
    assert report.problem is not None
    assert "stopped by the user" in report.problem
    assert report.summary["statistics"]["frames"] == 30
