from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.config import PipelineSettings, SpotterSettings
from engine.errors import ConfigError
from stream.recorded.settings import AnalysisSettings, ReadingSettings, load_analysis_settings


def test_settings_of_an_analysis_have_defaults() -> None:
    assert load_analysis_settings(None) == AnalysisSettings()
    assert AnalysisSettings().pipeline == PipelineSettings()


def test_pipeline_and_reading_are_read_from_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[reading]\nqueued_frames = 3\n[landmarks]\nmax_faces = 2\n")
    settings = load_analysis_settings(path)
    assert settings.reading == ReadingSettings(queued_frames=3)
    assert settings.pipeline.landmarks.max_faces == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[reading]\nthreads = 3", r"a\.toml: reading\.threads: extra inputs are not permitted"),
        ("[reading]\nqueued_frames = 0", r"a\.toml: reading\.queued_frames: .*greater than or equal to 1"),
        ("reading = 3", r"a\.toml: reading: "),
        ("[landmark]\nmax_faces = 1", r"a\.toml: landmark: extra inputs"),
        ("[landmarks]\nmax_faces = 'many'", r"a\.toml: landmarks\.max_faces: "),
        ("not toml", "no valid TOML"),
    ],
)
def test_errors_in_the_settings_of_an_analysis_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_analysis_settings(path)


def test_missing_settings_of_an_analysis_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_analysis_settings(tmp_path / "none.toml")


def test_settings_of_an_analysis_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AnalysisSettings().reading.queued_frames = 4  # type: ignore[misc]


def test_a_recording_does_not_load_the_settings_of_the_service() -> None:
    script = "import sys, stream.recorded.analyze; sys.exit('stream.settings' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_videos_have_no_parts_where_expressions_are_followed_for_longer_than_these_overlap() -> None:
    assert AnalysisSettings(reading=ReadingSettings(part_minutes=15)).part_s == 900
    long = PipelineSettings(spotter=SpotterSettings(longest_s=20))
    assert AnalysisSettings(pipeline=long).part_s == 0
