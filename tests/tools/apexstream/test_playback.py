from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apexstream.playback import facts_of, play_clip
from engine.errors import SourceError
from engine.types import Face, Frame
from stream.recorded.analyze import Report, analyze
from tests.live import PATIENCE_S
from tests.videos import stepping, write_video


def nothing(done: int, expected: int | None, events: int) -> None:
    """A progress that nobody looks at."""


def unseen(frame: Frame, faces: list[Face]) -> None:
    """Frames that nobody looks at."""


def test_what_is_received_is_what_an_analysis_finds(rendered_clip: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    done: list[int] = []

    async def main() -> Report:
        async with play_clip(rendered_clip, tmp_path / "store", seen=lambda frame, faces: seen.append(frame.index)) as player:
            async with asyncio.timeout(2 * PATIENCE_S):
                return await player.report(tmp_path / "clip", lambda at, of, events: done.append(at), asyncio.Event())

    report = asyncio.run(main())
    expected = analyze(rendered_clip, tmp_path / "expected")

    def reported(one: Report) -> list[dict[str, object]]:
        return [{key: value for key, value in event.as_dict().items() if key != "id"} for event in one.events]

    assert reported(report) == reported(expected) != []
    assert seen == list(range(report.summary["video"]["frames"]))
    assert done == sorted(done) and 0 < done[-1] <= len(seen)
    assert report.summary["statistics"] == expected.summary["statistics"]
    assert (tmp_path / "clip" / "events.csv").read_text().count("\n") == len(report.events) + 1


def test_stopping_is_an_error(tmp_path: Path) -> None:
    video = write_video(tmp_path / "grey.mp4", stepping(64, 48, 60))

    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        async with play_clip(video, tmp_path / "store", seen=unseen) as player:
            await player.report(tmp_path / "clip", nothing, stop)

    with pytest.raises(SourceError, match="stopped by the user"):
        asyncio.run(main())


def test_all_of_a_video_is_known(tmp_path: Path) -> None:
    facts = facts_of(write_video(tmp_path / "grey.mp4", stepping(64, 48, 20), rate=10))
    assert (facts.frames, facts.start, facts.end) == (20, 0.0, pytest.approx(1.9))
