from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from engine.types import Mark
from tests.stream.test_writers import EVENT
from tests.tools.test_overview import boxes
from tools.cli import main
from tools.clips.spec import EventTruth
from tools.commands.demo import compare

TRUTH = EventTruth("surprise", "brow_raise", "micro", 2.0, 4.0, 4.2, 4.4, 120, 126, 132)


def test_the_demo_ends_with_what_was_recognized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--headless", "--seconds", "6", "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert caught.value.code == 0, captured.err
    truth = json.loads((tmp_path / "clip.truth.json").read_text())["events"]
    last = re.fullmatch(r"recognized (\d+) of (\d+)", captured.out.rstrip().splitlines()[-1])
    assert last is not None
    assert int(last[2]) == len(truth) > 0
    verdicts = re.findall(r"\b(recognized|missed|found, wrong class|found, uncertain|not in the clip) *$", captured.out, re.M)
    assert verdicts.count("recognized") == int(last[1])
    assert len(verdicts) - verdicts.count("not in the clip") == len(truth)
    pictures = sorted(tmp_path.glob("event-*.jpg"))
    assert len(pictures) == len(verdicts)
    assert all(cv2.imread(str(picture)) is not None for picture in pictures)
    overview = tmp_path / "overview.png"
    assert str(overview) in captured.out
    assert boxes(overview, truth[0]["label"]), "the truth is on its lane"
    assert json.loads((tmp_path / "clip" / "summary.json").read_text())["complete"] is True


def test_an_event_in_time_and_of_the_right_class_is_recognized() -> None:
    (row,) = compare([TRUTH], [EVENT])
    assert (row.verdict, row.recognized) == ("recognized", True)
    assert row.iou == pytest.approx(0.396 / 0.438, abs=1e-3)


def test_other_outcomes_are_told_apart() -> None:
    wrong, unsure = replace(EVENT, label="negative"), replace(EVENT, label="uncertain")
    late = replace(EVENT, onset=Mark(200, 8.0), apex=Mark(203, 8.1), offset=Mark(206, 8.2))
    assert [row.verdict for row in compare([TRUTH], [wrong])] == ["found, wrong class"]
    assert [row.verdict for row in compare([TRUTH], [unsure])] == ["found, uncertain"]
    assert [row.verdict for row in compare([TRUTH], [late])] == ["missed", "not in the clip"]
    assert [row.verdict for row in compare([TRUTH], [])] == ["missed"]
    assert compare([], []) == []


def test_each_truth_counts_once() -> None:
    rows = compare([TRUTH], [EVENT, replace(EVENT, id="a2", onset=Mark(121, 4.02))])
    assert sorted(row.verdict for row in rows) == ["not in the clip", "recognized"]


def test_an_event_of_no_length_can_be_compared() -> None:
    assert [row.verdict for row in compare([], [replace(EVENT, offset=EVENT.onset)])] == ["not in the clip"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--out", str(tmp_path / "file" / "deep")])
    assert caught.value.code == 1
    assert re.fullmatch(r"apexstream: error: the folder .* cannot be made: .*\n", capsys.readouterr().err)
