from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import typer
from typer.testing import CliRunner

from engine.spotting.judge import JudgeCard
from engine.weights import sha256_of
from lab.recipes import fit_judge
from training.tapes import Tape, read_tapes, write_tapes


def test_the_command_fits_measures_and_writes_network_and_card(tapes: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(fit_judge.main)
    out = tmp_path / "new" / "judge.onnx"
    done = CliRunner().invoke(app, ["--tapes", str(tapes), "--out", str(out), "--steps", "3"])
    assert done.exit_code == 0, done.output
    card = JudgeCard.model_validate_json(out.with_suffix(".json").read_text())
    assert card.sha256 == sha256_of(out) and card.thresholds["normal"].high == 0.75 and "research only" in card.licence
    for name in ("normal_speech_false_a_minute", "normal_added_f1", "high_rendered_f1"):
        assert name in card.scores and name in done.stdout
    assert "step 3 of 3" in done.stderr


def test_an_error_is_one_sentence(tmp_path: Path) -> None:
    write_path = tmp_path / "tapes" / "tune" / "a.npz"
    write_path.parent.mkdir(parents=True)
    write_tapes(write_path, [Tape("a", "p", "quiet", np.zeros((60, 20), np.float32))])
    assert [tape.name for tape in read_tapes(write_path)] == ["a"]
    given = ["--tapes", str(tmp_path / "tapes"), "--out", str(tmp_path / "judge.onnx")]
    done = subprocess.run([sys.executable, "-m", "lab.recipes.fit_judge", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "there are no tapes in" in done.stderr and "Traceback" not in done.stderr
