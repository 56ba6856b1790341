from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from apexstream.cli import main
from apexstream.clips.spec import EventTruth
from apexstream.commands.demo import compare, has_display
from engine.types import Mark
from stream.events.query import Reader
from tests.live import PATIENCE_S
from tests.stream.recorded.test_files import EVENT
from tests.tools.apexstream.test_overview import boxes

ROOT = Path(__file__).resolve().parents[4]
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
    summary = json.loads((tmp_path / "clip" / "summary.json").read_text())
    assert summary["complete"] is True and summary["video"]["frames"] == summary["statistics"]["frames"] == 180
    assert "http://127.0.0.1:" in captured.out
    with Reader(tmp_path / "store") as stored:
        lines = (tmp_path / "clip" / "events.jsonl").read_text().splitlines()
        assert [event["id"] for event in stored.since(0)] == [json.loads(line)["id"] for line in lines]


def test_the_page_stays_until_it_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "apexstream", "demo", "--headless", "--stay", "--seconds", "2", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            output = list(iter(process.stdout.readline, "recognized 0 of 0\n"))
            page = next(line.split()[-1] for line in output if "http://" in line)
            assert page in process.stderr.readline()
            with urllib.request.urlopen(f"{page}healthz", timeout=PATIENCE_S) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_a_page_is_opened_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert has_display()


def test_an_event_in_time_and_of_the_right_class_is_recognized() -> None:
    (row,) = compare([TRUTH], [EVENT])
    assert (row.verdict, row.recognized) == ("recognized", True)
    assert row.iou == pytest.approx(0.396 / 0.438, abs=1e-3)


def test_other_outcomes_are_distinguished() -> None:
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
