from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from apexstream.cli import main
from tests.databases import write_casme2_squared, write_region_flow


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """Two subjects, each with a mouth that goes 4 px aside and back within half a second."""
    videos = {}
    for seed, name in enumerate(("samm_006_1", "samm_007_1")):
        motion = np.random.default_rng(seed).normal(0, 0.0005, (300, 12, 2))
        motion[100:106, 8:, 0] += 4 / 6 / 20
        motion[106:112, 8:, 0] -= 4 / 6 / 20
        videos[name] = motion.astype(np.float32)
    rows = [(name, "micro", 99, 105, 111) for name in videos]
    return write_region_flow(tmp_path, "samm-lv", videos, rows)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits that take a second."""
    monkeypatch.setattr("training.spot_flow.STEPS", 60)


@pytest.mark.usefixtures("short")
def test_region_flow_is_scored_beside_published_figures(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = flow / "new" / "record.json"
    assert exits("spot-evaluate", "samm-lv", str(flow), "--jobs", "1", "--seed", "2", "--out", str(out)) == 0
    output = capsys.readouterr().out
    assert "SAMM Long Videos: 2 videos (region flow) of 2 subjects, 2 micro- and 0 macro-expressions" in output
    for words in ("micro + macro", "1.000 ± .000", "AUW-GCN", ".3728", "MEGC 2021 winner", "STRS needs pictures"):
        assert words in output
    assert output.splitlines()[-1] == "overall F1 1.000"
    held = json.loads(out.read_text())
    assert held["command"] == "apexstream spot-evaluate samm-lv DATA --seed 2" and held["scores"]["micro"]["tp"] == 2
    assert [len(video["predicted"]) for video in held["videos"].values()] == [1, 1]


def test_two_processes_say_the_same(flow: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.spot_flow.STEPS", 5)
    output = []
    for jobs in ("1", "2"):
        assert exits("spot-evaluate", "samm-lv", str(flow), "--jobs", jobs) == 0
        output.append(capsys.readouterr().out)
    assert output[0] == output[1]


def test_pictures_go_through_the_live_pipeline_to_strs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_casme2_squared(tmp_path / "set")
    shutil.copytree(root / "rawpic" / "s15" / "15_0101disgustingteeth", root / "rawpic" / "s15" / "15_0401girl")
    shutil.rmtree(root / "rawpic" / "s16" / "16_0101disgustingteeth", ignore_errors=True)
    shutil.copytree(root / "rawpic" / "s15" / "15_0401girl", root / "rawpic" / "s16" / "16_0102other")
    assert exits("spot-evaluate", "casme2-squared", str(root), "--jobs", "1", "--out", str(tmp_path / "record.json")) == 0
    output = capsys.readouterr().out
    assert "named by the table but absent: 1 (16_0101)" in output
    assert re.search(r"^STRS \S+ = F1 \S+ x recognition F1 \S+ over 1 spotted", output, re.MULTILINE)
    assert re.fullmatch(r"overall F1 1?\.\d{3}", output.splitlines()[-1])
    held = json.loads((tmp_path / "record.json").read_text())
    assert held["scores"]["overall"]["tp"] == 1 and held["absent"] == ["16_0101"] and held["input"] == "pictures"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("casme9", "."), "there is no database of long videos 'casme9'; choose casme2-squared, samm-lv, casme3"),
        (("samm-lv", "gone"), "there is no folder gone; SAMM Long Videos is expected there, as pictures or region flow"),
        (("casme3", "."), "CAS(ME)3_part_A_v2.xls is not in or near .; name it with --annotations"),
        (("casme3", ".", "--annotations", "gone.xls"), "gone.xls cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exits("spot-evaluate", *args) == 1
    output = capsys.readouterr().err.strip()
    assert message in output and len(output.splitlines()) == 1
