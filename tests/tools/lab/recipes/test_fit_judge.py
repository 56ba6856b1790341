from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from apexstream.clips import preset, write_clip
from engine.errors import InputError
from engine.spotting.features import HZ
from engine.spotting.judge import JudgeCard
from engine.weights import sha256_of
from lab.clip_bench.real.folder import RealClip, read_clips
from lab.recipes import fit_judge
from training.tapes import Tape, read_tapes, write_tapes


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered clips with a smile each and one still face, of three people; one of each is held out."""
    folder = tmp_path_factory.mktemp("clips")
    few = {"size": (300, 260), "eye_px": 70.0, "duration_s": 4, "blinks_per_minute": 0.0, "actions": ("smile",)}
    for name, photo, events in (("a", "hopper", 1), ("b", "astronaut", 1), ("still", "hopper", 0), ("calm", "astronaut", 0)):
        write_clip(preset("clean", photo, seed=2, n_events=events, **few), folder / f"{name}.mp4")
    for name in ("still", "calm"):
        (folder / f"{name}.truth.json").unlink()
    rows = ("a.mp4,grace,other,tune", "b.mp4,eileen,other,test", "still.mp4,grace,quiet,tune", "calm.mp4,eileen,speech,test")
    (folder / "manifest.csv").write_text("\n".join(("file,person,kind,split", *rows)))
    return folder


@pytest.fixture(scope="module")
def tapes(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tapes")
    fit_judge.collect([clips], folder, longest_s=10.0)
    return folder


def test_clips_become_tapes_with_what_is_known_of_them(clips: Path, tapes: Path) -> None:
    (rendered,) = (tape for tape in fit_judge.read_split(tapes, "tune") if tape.kind == "rendered")
    (truth,) = read_clips(clips, only="a.mp4")[0].truths
    (known,) = rendered.known
    assert known.onset / HZ == pytest.approx(truth.onset, abs=0.1) and known.offset / HZ == pytest.approx(truth.offset, abs=0.1)
    assert len(rendered.displacement) == pytest.approx(4 * HZ, abs=4) and rendered.mesh is not None
    reach = np.ptp(rendered.displacement[round(known.onset) : round(known.offset) + 1], axis=0).max()
    still = np.ptp(rendered.displacement[: max(round(known.onset), 2)], axis=0).max()
    assert reach > 0.8 and reach > 2 * still
    kinds = {tape.name: (tape.kind, tape.person) for split in ("tune", "test") for tape in fit_judge.read_split(tapes, split)}
    assert kinds["still.mp4"] == ("quiet", "grace") and kinds["calm.mp4"] == ("speech", "eileen")


def test_tapes_that_are_there_are_kept(clips: Path, tapes: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tapes.rglob("*.npz")}
    fit_judge.collect([clips], tapes, longest_s=10.0)
    assert len(before) == 4 and before == {path: path.stat().st_mtime_ns for path in tapes.rglob("*.npz")}


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


def test_kinds_without_truth_are_left_out_and_names_decide_the_split() -> None:
    assert fit_judge.tapes_of(RealClip("x.mp4", Path("x.mp4"), "ada", "posing"), 10.0) == []
    splits = [fit_judge.split_of(RealClip(f"{k}.mp4", Path(), f"person {k}")) for k in range(80)]
    assert 10 <= splits.count("test") <= 30
    assert fit_judge.split_of(RealClip("x.mp4", Path(), "person 0")) == splits[0]


def test_a_person_in_both_splits_is_refused(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    table = tmp_path / "clips" / "manifest.csv"
    table.write_text(table.read_text().replace("still.mp4,grace,quiet,tune", "still.mp4,grace,quiet,test"))
    with pytest.raises(InputError, match="in both splits: grace"):
        fit_judge.collect([tmp_path / "clips"], tmp_path / "tapes", 10.0)


def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path) -> None:
    write_path = tmp_path / "tapes" / "tune" / "a.npz"
    write_path.parent.mkdir(parents=True)
    write_tapes(write_path, [Tape("a", "p", "quiet", np.zeros((60, 20), np.float32))])
    assert [tape.name for tape in read_tapes(write_path)] == ["a"]
    given = ["--tapes", str(tmp_path / "tapes"), "--out", str(tmp_path / "judge.onnx")]
    done = subprocess.run([sys.executable, "-m", "lab.recipes.fit_judge", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "there are no tapes in" in done.stderr and "Traceback" not in done.stderr
