from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from typer import Typer
from typer.testing import CliRunner

from engine.errors import BackendError, OutputError
from lab import demo_animation
from lab.demo_animation import Shot, animation, capture, dashboard, still
from tests.browser import PATIENCE_MS, RunningService
from tests.events import decided

app = Typer()
app.command()(demo_animation.main)


def shots(count: int, size: tuple[int, int] = (320, 200)) -> list[Shot]:
    """Pictures with a bar that moves, a fifth of a second apart."""
    made = []
    for number in range(count):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).rectangle((20 * number, 50, 20 * number + 15, 150), fill="navy")
        made.append(Shot(number / 5, picture))
    return made


def test_each_frame_is_shown_as_long_as_it_was_on_the_page() -> None:
    taken = shots(4)
    taken[2] = Shot(0.5, taken[2].picture)
    with Image.open(BytesIO(animation(taken, end=0.9))) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (4, (320, 200), 0)
        durations = []
        for number in range(4):
            picture.seek(number)
            picture.load()
            durations.append(picture.info["duration"])
    assert durations == [200, 300, 100, 300]


def test_an_animation_that_is_too_large_is_an_error() -> None:
    with pytest.raises(OutputError, match="larger than"):
        animation(shots(3), end=0.6, most_bytes=100)


def test_a_still_picture_is_the_last_frame() -> None:
    taken = shots(3)
    with Image.open(BytesIO(still(taken))) as picture:
        assert picture.format == "PNG"
        assert picture.convert("RGB").tobytes() == taken[-1].picture.tobytes()


def test_screenshots_show_what_the_page_shows(tmp_path: Path) -> None:
    with RunningService(tmp_path) as service, dashboard(service.url, (640, 480)) as page:
        before = capture(page, seconds=0.5, fps=4)
        service.tell(decided(1))
        expect(page.locator("#rows tr")).to_have_count(1, timeout=PATIENCE_MS)
        after = capture(page, seconds=0.1, fps=4)
    assert 1 <= len(before) <= 2 and len(after) == 1
    assert before[0].picture.size == (640, 480) and 0 <= before[0].t < 0.5
    assert before[-1].picture.tobytes() != after[-1].picture.tobytes()


def test_a_missing_browser_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BackendError, match="Chromium was not found"), dashboard("http://127.0.0.1:9/", (640, 480)):
        pass


def test_a_live_clip_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_animation, "CLIP_S", 6.0)
    path = tmp_path / "page.webp"
    result = CliRunner().invoke(
        app, [str(path), "--seconds", "2", "--fps", "3", "--after", "0", "--width", "640", "--height", "400"]
    )
    assert result.exit_code == 0, result.output
    with Image.open(path) as picture:
        assert picture.format == "WEBP" and picture.size == (640, 400) and 1 <= picture.n_frames <= 6


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_animation, "record", lambda **_: shots(2))
    result = CliRunner().invoke(app, [str(tmp_path / "no" / "page.webp")])
    assert result.exit_code == 1 and "cannot be written" in str(result.exception)
