from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import apexstream.video_analysis
from apexstream.cli import main
from apexstream.overview import WIDTH
from engine.weights import DEFAULT, default_weights
from stream.recorded.analyze import Report
from tests.tools.apexstream.test_overview import boxes
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[4]
FILES = ["activity.jsonl", "events.csv", "events.jsonl", "events.vtt", "faces.csv", "report.html", "run.json", "summary.json"]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apexstream", "analyze", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def exits(*args: object) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["analyze", *map(str, args)])
    return caught.value.code


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def small(path: Path, count: int = 5) -> Path:
    return write_video(path, stepping(64, 48, count))


def test_a_video_becomes_files_and_a_table(rendered_clip: Path, tmp_path: Path) -> None:
    ended = run(rendered_clip, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", "a library's own messages reached the user"
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == FILES
    count = summary(tmp_path / "clip")["events"]["count"]
    assert f"{count} event" in ended.stdout
    for line in (tmp_path / "clip" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        assert f"{event['apex']['t']:.3f}" in ended.stdout
        assert event["label"] in ended.stdout


def test_the_report_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = small(tmp_path / "clip.mp4")
    assert exits(video, "--out", tmp_path / "out") == 0
    assert str(tmp_path / "out" / "clip" / "report.html") in capsys.readouterr().out
    assert exits(video, "--out", tmp_path / "without", "--no-report") == 0
    assert "report.html" not in capsys.readouterr().out
    assert not (tmp_path / "without" / "clip" / "report.html").exists()


def test_a_defect_in_one_video_is_reported_and_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = small(tmp_path / "a.mp4"), small(tmp_path / "b.mp4")
    analyze = apexstream.video_analysis.analyze

    def fails_on_the_first(path: Path, *args: Any, **kwargs: Any) -> Report:
        if path == videos[0]:
            raise RuntimeError("the graph is gone")
        return analyze(path, *args, **kwargs)

    monkeypatch.setattr(apexstream.video_analysis, "analyze", fails_on_the_first)
    assert exits(*videos, "--out", tmp_path / "out") == 1
    reported = capsys.readouterr().err
    assert reported.count("\n") == 1 and "the graph is gone" in reported and str(videos[0]) in reported
    assert summary(tmp_path / "out" / "b")["complete"] is True
    with pytest.raises(SystemExit):
        main(["--debug", "analyze", str(videos[0]), "--out", str(tmp_path / "out")])
    assert "Traceback" in capsys.readouterr().err


def test_pictures_are_stored_when_asked_for(rendered_clip: Path, tmp_path: Path) -> None:
    ended = run(rendered_clip, "--out", tmp_path, "--pictures")
    assert (ended.returncode, ended.stderr) == (0, "")
    folder = tmp_path / "clip"
    labels = [json.loads(line)["label"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert labels, "a clip of three expressions gave no event at all"
    pictures = [f"event-{number:02d}.jpg" for number in range(1, len(labels) + 1)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, *pictures, "overview.png"])
    assert Image.open(folder / "overview.png").size[0] == WIDTH
    for label in labels:
        assert len(boxes(folder / "overview.png", label)) >= labels.count(label)
    assert str(folder / "overview.png") in ended.stdout


def test_pictures_of_a_video_without_a_face(tmp_path: Path) -> None:
    assert exits(small(tmp_path / "clip.mp4"), "--out", tmp_path / "out", "--pictures") == 0
    assert sorted(path.name for path in (tmp_path / "out" / "clip").iterdir()) == sorted([*FILES, "overview.png"])


def test_pictures_of_what_can_be_read_only_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.ts")
    assert exits(tmp_path / "pipe.ts", "--out", tmp_path / "out", "--pictures") == 1
    assert "can be read only once" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_failing_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    videos = [small(tmp_path / "first.mp4"), tmp_path / "text.mp4", tmp_path / "none.mp4", small(tmp_path / "last.mp4")]
    assert exits(*videos, "--out", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first", "last"]
    output = capsys.readouterr().err.splitlines()
    assert len(output) == 2
    assert output[0].startswith(f"apexstream: error: {tmp_path / 'text.mp4'} cannot be read as a video")
    assert output[1] == f"apexstream: error: {tmp_path / 'none.mp4'}: there is no such file or folder"


def test_names_that_would_collide_are_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = [small(tmp_path / "clip.mp4", 3), small(tmp_path / "clip.mkv", 4)]
    assert exits(*videos, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    for name, frames in (("clip.mp4", 3), ("clip.mkv", 4)):
        assert f"{tmp_path / name}: the name clip is taken; its results go to {tmp_path / 'out' / name}\n" in printed
        assert summary(tmp_path / "out" / name)["video"]["frames"] == frames


def test_a_later_run_overwrites_no_other_video_of_that_name(tmp_path: Path) -> None:
    """The same video's results are replaced, those of another folder's or ending's stay."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second, third = small(tmp_path / "a" / "x.mp4", 3), small(tmp_path / "b" / "x.mp4", 4), small(tmp_path / "x.mkv", 5)
    for video in (first, second, third, second):
        assert exits(video, "--out", tmp_path / "out") == 0
    counts = {path.name: summary(path)["video"]["frames"] for path in (tmp_path / "out").iterdir()}
    assert counts == {"x": 3, "x.mp4": 4, "x.mkv": 5}


@pytest.mark.parametrize(
    "name", ["Grüße 你好.mp4", "%20d.mp4", "a%03d.mp4", "=1+1.mp4", "@SUM(1).mp4", "-dash.mp4", "two  spaces .mp4"]
)
def test_odd_names_are_read_and_written_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    assert exits("--out", "out", "--", name) == 0
    assert summary(tmp_path / "out" / Path(name).stem)["video"]["frames"] == 3


def test_settings_of_other_editors_are_read(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_bytes(b"\xef\xbb\xbf[reading]\r\nqueued_frames = 3\r\n")
    assert exits(small(tmp_path / "clip.mp4"), "--out", tmp_path / "out", "--config", config) == 0
    assert summary(tmp_path / "out" / "clip")["settings"]["reading"]["queued_frames"] == 3


def test_settings_reach_the_analysis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "a.toml"
    config.write_text("[reading]\nqueued_frames = 3\n")
    video = small(tmp_path / "clip.mp4")
    assert exits(video, "--out", tmp_path / "out", "--config", config) == 0
    assert summary(tmp_path / "out" / "clip")["settings"]["reading"]["queued_frames"] == 3
    config.write_text("[reading]\nqueue = 3\n")
    assert exits(video, "--out", tmp_path / "out", "--config", config) == 1
    assert "reading.queue: extra inputs are not permitted" in capsys.readouterr().err


def test_a_network_named_on_the_command_line_goes_before_the_settings(tmp_path: Path) -> None:
    config, video = tmp_path / "a.toml", small(tmp_path / "clip.mp4")
    config.write_text('[recognizer]\nweights = "none.onnx"\n')
    for flag, value in (("--network", "ahmsa"), ("--weights", default_weights())):
        out = tmp_path / flag
        assert exits(video, "--out", out, "--config", config, flag, value) == 0
        assert summary(out / "clip")["model"].startswith(f"{DEFAULT}@")
    assert exits(video, "--out", tmp_path / "out", "--config", config) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network", "resnet"], "'resnet' is none of ahmsa, htnet, hfa"),
        (["--network", "ahmsa", "--weights", "a.onnx"], "give one of them"),
    ],
)
def test_networks_that_cannot_be_meant_are_wrong_usage(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits(tmp_path / "clip.mp4", "--out", tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_network_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    ended = run(small(tmp_path / "clip.mp4"), "--out", tmp_path / "out", "--weights", tmp_path / "none.onnx")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "a network is an .onnx file with its card" in ended.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(small(tmp_path / "clip.mp4"), "--out", tmp_path / "file")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(
        f"apexstream: error: {tmp_path / 'clip.mp4'}: {tmp_path / 'file' / 'clip'} cannot be written"
    )


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / "events.csv").symlink_to("/dev/full")
    ended = run(small(tmp_path / "clip.mp4"), small(tmp_path / "other.mp4"), "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "events.csv cannot be written: no space left on device" in ended.stderr
    assert summary(tmp_path / "out" / "clip")["complete"] is False
    assert summary(tmp_path / "out" / "other")["complete"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_keeps_what_was_found(number: signal.Signals, tmp_path: Path) -> None:
    """The video comes through a small pipe, so that its middle is known: the reader has what was written, and waits."""
    frames = 90
    data = write_video(tmp_path / "whole.ts", stepping(320, 240, frames)).read_bytes()
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        "-m",
        "apexstream",
        "analyze",
        str(pipe),
        str(tmp_path / "whole.ts"),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    with suppress(BrokenPipeError), pipe.open("wb") as writer:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        writer.write(data[: len(data) // 3])
        writer.flush()
        process.send_signal(number)
        writer.write(data[len(data) // 3 :])
    _, reported = process.communicate(timeout=60)
    assert process.returncode == 1
    assert reported.splitlines() == [
        f"apexstream: error: {pipe}: stopped by the user; 0 events kept in {tmp_path / 'out' / 'pipe'}",
        f"apexstream: error: {tmp_path / 'whole.ts'}: not analysed, stopped by the user",
    ]
    assert summary(tmp_path / "out" / "pipe")["complete"] is False
    assert summary(tmp_path / "out" / "pipe")["video"]["frames"] < frames


@pytest.mark.data
def test_real_video_without_a_face_exits_0(data_dir: Path, tmp_path: Path) -> None:
    ended = run(data_dir / "media" / "no_face.mp4", "--out", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0 events in 95 frames" in ended.stdout
