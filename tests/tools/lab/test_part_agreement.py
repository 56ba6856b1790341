from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engine.types import Event, Mark
from lab.part_agreement import Agreement, agreement, main, measure
from stream.recorded.models import Models
from stream.recorded.settings import AnalysisSettings
from tests.parts import shorten_parts
from tests.videos import stepping, write_video


def event(onset: float, offset: float, label: str = "positive") -> Event:
    apex = (onset + offset) / 2
    marks = Mark(round(30 * onset), onset), Mark(round(30 * apex), apex), Mark(round(30 * offset), offset)
    return Event("?", "v", 0, "final", "macro", *marks, label, {label: 1.0}, 1.0, 1.0, "net@1")


def test_expressions_are_the_same_that_overlap_by_half() -> None:
    once = [event(1, 2), event(5, 6), event(9, 10)]
    other = [event(1.1, 2.1), replace(event(5, 6), label="negative"), event(9.6, 10.6), event(20, 21)]
    assert agreement(once, other) == Agreement(once=3, other=4, same=2, alike=1)
    assert agreement([], []) == Agreement(0, 0, 0, 0)
    assert Agreement(1, 2, 3, 4) + Agreement(10, 20, 30, 40) == Agreement(11, 22, 33, 44)


def test_a_clip_in_parts_is_compared(rendered_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=1.0, around=0.3, tail=1.5, least=2.0)
    for name, value in (("WARM_S", 1.0), ("JOIN_S", 0.3)):
        monkeypatch.setattr(f"lab.part_agreement.{name}", value)
    with closing(Models(AnalysisSettings().pipeline)) as models:
        found = measure(rendered_clip, 2.7 / 60, models)
    assert found.keys() == {"parts", "a second later"}
    for one in found.values():
        assert one.once >= 1
        assert one.alike <= one.same <= min(one.once, one.other)
        assert one.same >= one.once - 1


def test_a_video_that_is_too_short_is_said(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    video = write_video(tmp_path / "v.mp4", stepping(64, 48, 30))
    result = CliRunner().invoke(app, [str(video), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {}
    assert "too short for two parts" in result.stderr
