from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stream.recorded.models import Models
from stream.recorded.parts.plan import WHOLE, Part
from stream.recorded.passage import Ending, Passage, Seen, Step, lightened, queue_capacity
from stream.recorded.settings import AnalysisSettings
from stream.sources.file import open_video
from tests.parts import shorten_parts
from tests.videos import stepping, write_video

SETTINGS = AnalysisSettings()


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    loaded = Models(SETTINGS.pipeline)
    yield loaded
    loaded.close()


@pytest.fixture
def faceless(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.mp4", stepping(64, 48, 120), options={"g": "10"})


def steps_in(video: Path, models: Models, part: Part = WHOLE) -> list[Step]:
    passage = Passage(video, SETTINGS.reading, stop=threading.Event(), part=part)
    steps = list(passage.steps(models, "v"))
    passage.close()
    return steps


def times(steps: list[Step]) -> list[float]:
    return [step.frame.t for step in steps if isinstance(step, Seen)]


def test_a_pass_ends_with_what_was_read(faceless: Path, models: Models) -> None:
    *_, last = steps_in(faceless, models)
    assert isinstance(last, Ending)
    assert (last.reading.counts.frames, last.reading.finished, last.problem) == (120, True, None)
    assert last.spent_s > 0


def test_a_part_has_the_same_frames_as_the_whole(faceless: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=0.5, around=0.2, tail=0.3, least=1.0)
    whole = times(steps_in(faceless, models))
    part = Part(1.5, 2.5)
    steps = steps_in(faceless, models, part)
    assert times(steps) == [t for t in whole if part.first <= t < part.last]
    assert isinstance(steps[-1], Ending)
    assert steps[-1].problem is None


def test_a_pass_that_is_stopped_ends(faceless: Path, models: Models) -> None:
    stop = threading.Event()
    passage = Passage(faceless, SETTINGS.reading, stop=stop)
    steps = passage.steps(models, "v")
    next(steps)
    stop.set()
    rest = list(steps)
    passage.close()
    assert [type(step) for step in rest] == [Ending]
    assert isinstance(rest[0], Ending)
    assert rest[0].stopped


def test_a_part_that_ends_before_its_end_has_failed(faceless: Path, models: Models) -> None:
    last = steps_in(faceless, models, Part(0.0, 100.0))[-1]
    assert isinstance(last, Ending)
    assert last.failure == f"{faceless}: reading broke off at 4.0 s"


def test_pixels_are_dropped_and_sizes_stay(rendered_clip: Path, models: Models) -> None:
    passage = Passage(rendered_clip, SETTINGS.reading, stop=threading.Event())
    for step in passage.steps(models, "v"):
        if isinstance(step, Seen) and step.observations and step.observations[0].crop is not None:
            break
    passage.close()
    assert isinstance(step, Seen)
    light, kept = lightened(step, faces=False), lightened(step, faces=True)
    assert isinstance(light, Seen)
    assert isinstance(kept, Seen)
    assert (light.frame.width, light.frame.height) == (step.frame.width, step.frame.height)
    dropped, original = light.observations[0].crop, step.observations[0].crop
    assert dropped is not None
    assert original is not None
    assert not dropped.pixels.any()
    assert dropped.pixels.shape == original.pixels.shape
    assert kept.observations[0].crop is original


@pytest.mark.parametrize(
    ("size", "configured", "capacity"),
    [((640, 360), 8, 8), ((640, 360), 1, 1), ((4096, 2304), 8, 4), ((16384, 8192), 8, 2), ((16, 16), 256, 256)],
)
def test_large_frames_wait_in_shorter_queues(size: tuple[int, int], configured: int, capacity: int, faceless: Path) -> None:
    with open_video(faceless) as source:
        facts = replace(source.facts, width=size[0], height=size[1])
    assert queue_capacity(configured, facts) == capacity
