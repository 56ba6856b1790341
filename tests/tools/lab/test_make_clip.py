from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from apexstream.clips.spec import read_truth
from engine.errors import InputError
from lab.make_clip import app

SMALL = ["--size", "320x180", "--eye-px", "45", "--seconds", "9"]


def test_the_command_writes_clip_truth_and_sheet(tmp_path: Path) -> None:
    out, sheet = tmp_path / "clip.mp4", tmp_path / "sheet.png"
    arguments = ["--photo", "astronaut-2", "--fps", "25", "--seed", "4", "--events", "2", "--micro-px", "1.5:2", "--noise", "1"]
    result = CliRunner().invoke(app, [*SMALL, *arguments, "--out", str(out), "--contact-sheet", str(sheet)])
    assert result.exit_code == 0, result.output
    truth = read_truth(tmp_path / "clip.truth.json")
    assert (truth.spec.photo, truth.spec.fps, truth.spec.seed, truth.frames) == ("astronaut-2", 25.0, 4, 225)
    assert (len(truth.events), truth.spec.micro_px, truth.spec.noise_sigma) == (2, (1.5, 2.0), 1.0)
    assert out.stat().st_size > 10_000
    assert sheet.stat().st_size > 10_000


def test_into_a_video(tmp_path: Path) -> None:
    video, out = tmp_path / "person.mp4", tmp_path / "out.mp4"
    made = CliRunner().invoke(app, [*SMALL, "--preset", "still_noisy", "--seconds", "5", "--out", str(video)])
    assert made.exit_code == 0, made.output
    into = ["--into", str(video), "--out", str(out), "--events", "1"]
    result = CliRunner().invoke(app, [*into, "--actions", "smile, lip_depress", "--micro-px", "4:5", "--seconds", "4"])
    assert result.exit_code == 0, result.output
    truth = read_truth(tmp_path / "out.truth.json")
    assert truth.into is not None
    assert (truth.into.video, truth.into.actions, truth.into.micro_px) == ("person.mp4", ("smile", "lip_depress"), (4.0, 5.0))
    assert (len(truth.events), truth.frames) == (1, 120)
    refused = CliRunner().invoke(app, [*into, "--noise", "2"])
    assert isinstance(refused.exception, InputError)
    assert "--noise is for rendered clips" in str(refused.exception)
    same = CliRunner().invoke(app, ["--into", str(video), "--out", str(video)])
    assert "is the video itself" in str(same.exception)


def test_help_lists_the_options() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert result.exit_code == 0
    for word in ("--photo", "--preset", "still_noisy", "Example", "--contact-sheet", "--into", "--actions"):
        assert word in result.output


def test_wrong_usage_and_wrong_values(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "clip.mp4")]
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, [*out, "--size", "big"]).exit_code == 2
    assert CliRunner().invoke(app, [*out, "--micro-px", "little"]).exit_code == 2
    result = CliRunner().invoke(app, [*out, "--photo", "mona-lisa"])
    assert isinstance(result.exception, InputError)


def test_a_failure_is_one_sentence_and_exit_code_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.make_clip", "--seconds", "2", "--out", str(tmp_path / "no" / "clip.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("apexstream: error: the clip cannot be written")
    assert "Traceback" not in done.stderr
