from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from engine.types import Activity, Mark
from stream.recorded.settings import AnalysisSettings
from stream.recorded.summary import PACKAGES, count_events, notes, package_versions, summarize, timing
from stream.sources.file import open_video
from tests.stream.recorded.test_files import EVENT
from tests.videos import stepping, write_video


def test_counts() -> None:
    events = [EVENT, replace(EVENT, face=2, kind="macro", speaking=True), replace(EVENT, label="uncertain", truncated=True)]
    assert count_events(events) == {
        "count": 3,
        "by_label": {"surprise": 2, "uncertain": 1},
        "by_kind": {"micro": 2, "macro": 1},
        "by_face": {"0": 2, "2": 1},
        "truncated": 1,
        "speaking": 1,
    }


def test_the_summary_of_a_video(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mp4", stepping(64, 48, 31))) as source:
        frames = sum(1 for _ in source)
    summary = summarize(
        stream="clip",
        video=source.facts,
        events=[EVENT],
        activities=[Activity(0, "speech", Mark(0, 0.0), Mark(30, 1.0)), Activity(0, "speech", Mark(60, 2.0), Mark(75, 2.5))],
        statistics={"blinks": 2},
        model=EVENT.model,
        backend="ort",
        settings=AnalysisSettings(),
        problem=None,
    )
    assert summary["complete"] is True and summary["notes"] == []
    assert summary["video"]["frames"] == frames == 31
    assert summary["activities"]["speech"] == {"count": 2, "seconds": 1.5}
    assert summary["activities"]["blink"] == {"count": 0, "seconds": 0}
    assert (summary["model"], summary["backend"], summary["statistics"]) == (EVENT.model, "ort", {"blinks": 2})
    assert summary["settings"] == AnalysisSettings().model_dump(mode="json")


def test_when_and_how_fast_is_apart_from_the_summary(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mp4", stepping(64, 48, 31))) as source:
        assert sum(1 for _ in source) == 31
    assert timing(source.facts, datetime(2026, 1, 31, 9, tzinfo=UTC), 0.5) == {
        "started_at": "2026-01-31T09:00:00.000Z",
        "wall_s": 0.5,
        "frames_per_s": 62.0,
        "times_real_time": 2.0,
    }


def test_a_problem_is_an_incomplete_analysis(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mp4", stepping(64, 48, 2))) as source:
        summary = summarize(
            stream="clip",
            video=source.facts,
            events=[],
            activities=[],
            statistics={},
            model=EVENT.model,
            backend="ort",
            settings=AnalysisSettings(),
            problem="stopped",
        )
    assert (summary["complete"], summary["problem"]) == (False, "stopped")
    assert summary["video"]["duration"] is None


def test_versions_of_packages_that_affect_the_result() -> None:
    assert set(package_versions()) == set(PACKAGES)
    assert all(package_versions().values())


def test_limits_of_the_video_are_noted() -> None:
    assert list(notes(30, {"frames_with_face": 100, "repeated": 9})) == []
    (slow,) = notes(10, {})
    assert "cannot be seen at 10 frames/s" in slow
    repeats, slow = notes(25, {"frames_with_face": 100, "repeated": 31})
    assert repeats == "31% of the frames repeat the one before: the video shows 17 different pictures a second"
    assert "cannot be seen at 17 frames/s" in slow


def test_a_video_without_a_face_is_noted() -> None:
    assert list(notes(30, {"frames_with_face": 0})) == ["no face was seen in the video"]
