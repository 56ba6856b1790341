"""A video of a face, followed, for the tests of what is put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexstream.clips.follow import Followed, follow
from apexstream.clips.render import render_frames
from apexstream.clips.spec import ClipSpec
from apexstream.clips.write import encode

STILL = ClipSpec(size=(320, 240), eye_px=70.0, duration_s=6.0, fps=25.0, n_events=0, blinks_per_minute=0.0, sway_px=3.0)
START_S = 0.027


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face without expression that sways, in place of a filmed one; its times start late, as some files' do."""
    path = tmp_path_factory.mktemp("into") / "person.mp4"
    frames = ((t + START_S, picture) for t, picture in render_frames(STILL))
    encode(path, frames, size=STILL.size, fps=STILL.fps, crf=12)
    return path


@pytest.fixture(scope="session")
def face(video: Path) -> Followed:
    return follow(video)
