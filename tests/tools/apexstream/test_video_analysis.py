from __future__ import annotations

import pickle
from pathlib import Path

from apexstream.video_analysis import AnalysisOptions, analyze_video
from stream.recorded.settings import AnalysisSettings, ReadingSettings
from tests.videos import stepping, write_video


def test_options_can_be_sent_to_another_process() -> None:
    options = AnalysisOptions(AnalysisSettings(reading=ReadingSettings(queued_frames=3)), pictures=True)
    assert pickle.loads(pickle.dumps(options)) == options


def test_what_is_written_besides_the_events_is_optional(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 5))
    for wanted in (False, True):
        folder = tmp_path / str(wanted)
        report = analyze_video(
            video, folder, AnalysisOptions(pictures=wanted, frames=wanted, formats=("eaf",) * wanted), stream="lobby"
        )
        assert (report.problem, report.folder, report.summary["stream"]) == (None, folder, "lobby")
        assert (folder / "summary.json").is_file()
        assert (folder / "overview.png").is_file() == wanted
        assert (folder / "frames.csv").is_file() == wanted
        assert (folder / "events.eaf").is_file() == wanted
