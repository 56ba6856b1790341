"""Settings of the analysis of recorded videos: the pipeline from frame to event, and reading the file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from engine.config import PipelineSettings, Settings, read_toml
from engine.errors import ConfigError

FOLLOWED_IN_PARTS_S = 8.0
"""Parts of a video overlap by enough for expressions that are followed for so long (`stream.recorded.parts.plan`)."""


class ReadingSettings(Settings):
    """Reading a file: the table [reading]."""

    decode_threads: int = Field(default=0, ge=0, le=64, description="threads of the decoder; 0: by the size of the picture")
    queued_frames: int = Field(default=8, ge=1, le=256, description="decoded frames that may wait for each stage")
    part_minutes: float = Field(
        default=20.0, ge=0, description="longer videos are analysed in parts of about so many minutes, one at least; 0: in one"
    )


class AnalysisSettings(Settings):
    """All settings of `analyze`."""

    pipeline: PipelineSettings = PipelineSettings()
    reading: ReadingSettings = ReadingSettings()

    @property
    def part_s(self) -> float:
        """The length of the parts of long videos, seconds; 0 for none."""
        return 60 * self.reading.part_minutes * (self.pipeline.spotter.longest_s <= FOLLOWED_IN_PARTS_S)


def load_analysis_settings(path: Path | None) -> AnalysisSettings:
    """Settings from a TOML file: the pipeline's tables and [reading], each optional; defaults without a file.

    Raises ConfigError that names the key and what was expected.
    """
    if path is None:
        return AnalysisSettings()
    content = read_toml(path)
    try:
        return AnalysisSettings.model_validate({"reading": content.pop("reading", {}), "pipeline": content})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])).removeprefix("pipeline.")
        raise ConfigError(f"{path}: {key}: {first['msg'].lower()}") from error
