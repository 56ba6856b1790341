from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.spotting.features import HZ
from lab.clip_bench.real.folder import RealClip, read_clips
from lab.recipes.collect_tapes import collect, read_split, split_of, tapes_of


def test_clips_become_tapes_with_what_is_known_of_them(clips: Path, tapes: Path) -> None:
    (rendered,) = (tape for tape in read_split(tapes, "tune") if tape.kind == "rendered")
    (truth,) = read_clips(clips, only="a.mp4")[0].truths
    (known,) = rendered.known
    assert known.onset / HZ == pytest.approx(truth.onset, abs=0.1) and known.offset / HZ == pytest.approx(truth.offset, abs=0.1)
    assert len(rendered.displacement) == pytest.approx(4 * HZ, abs=4) and rendered.mesh is not None
    reach = np.ptp(rendered.displacement[round(known.onset) : round(known.offset) + 1], axis=0).max()
    still = np.ptp(rendered.displacement[: max(round(known.onset), 2)], axis=0).max()
    assert reach > 0.8 and reach > 2 * still
    kinds = {tape.name: (tape.kind, tape.person) for split in ("tune", "test") for tape in read_split(tapes, split)}
    assert kinds["still.mp4"] == ("quiet", "grace") and kinds["calm.mp4"] == ("speech", "eileen")


def test_tapes_that_are_there_are_kept(clips: Path, tapes: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tapes.rglob("*.npz")}
    collect([clips], tapes, longest_s=10.0)
    assert len(before) == 4 and before == {path: path.stat().st_mtime_ns for path in tapes.rglob("*.npz")}


def test_kinds_without_truth_are_left_out_and_names_decide_the_split() -> None:
    assert tapes_of(RealClip("x.mp4", Path("x.mp4"), "ada", "posing"), 10.0) == []
    splits = [split_of(RealClip(f"{k}.mp4", Path(), f"person {k}")) for k in range(80)]
    assert 10 <= splits.count("test") <= 30
    assert split_of(RealClip("x.mp4", Path(), "person 0")) == splits[0]


def test_a_person_in_both_splits_is_refused(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    table = tmp_path / "clips" / "manifest.csv"
    table.write_text(table.read_text().replace("still.mp4,grace,quiet,tune", "still.mp4,grace,quiet,test"))
    with pytest.raises(InputError, match="in both splits: grace"):
        collect([tmp_path / "clips"], tmp_path / "tapes", 10.0)
