from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from apexstream.cli import main
from apexstream.commands import prepare as command
from tests.databases import shot, write_casme3
from tests.training.test_pool import PoolHere
from training.pool import OpenPool


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_casme3(tmp_path_factory.mktemp("source"))
    shutil.rmtree(root / "part_A" / "spNO.1" / "b")
    return root


def test_what_was_made_and_what_was_left_out_is_shown(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits("prepare", "casme3", str(source), "--out", f"{tmp_path}/maps") == 0
    output = capsys.readouterr().out
    assert "CAS(ME)^3 part A: 2 flow maps of 2 subjects (negative 0, positive 1, surprise 1)" in output
    assert "left out: 0 of other classes, 0 by the table, 1 for their pictures" in output
    assert f"spNO.1_b_{shot('brow_lower').apex}: there is no folder spNO.1/b/color with pictures" in output
    with (tmp_path / "maps" / "casme3" / "clips.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["positive", "surprise"]


def test_train_takes_what_was_prepared(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\n[model]\nname = "ahmsa"\noptions = { width = 8, heads = 2, repeats = [1, 1, 1] }\n'
        "[fit]\nepochs = 1\nbatch = 2\nlearning_rate = 1e-3\n"
    )
    maps = f"{tmp_path}/maps"
    assert exits("prepare", "CASME3", str(source), "--out", maps) == 0
    assert exits("train", "--config", str(recipe), "--data", maps, "--out", f"{tmp_path}/run") == 0
    fitted = json.loads((tmp_path / "run" / "data.json").read_text())
    assert fitted["maps"] == 2 and fitted["databases"] == {"casme3": {"negative": 0, "positive": 1, "surprise": 1}}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("casme9", "."), "there is no database 'casme9'; choose casme2, samm, smic or casme3"),
        (("samm", "gone"), "there is no folder gone; the pictures of SAMM are expected below it"),
        (("samm", "."), "SAMM_Micro_FACS_Codes_v2.xlsx is not in or near .; name it with --annotations"),
        (("samm", ".", "--annotations", "gone.xlsx"), "gone.xlsx cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits("prepare", *args, "--out", str(tmp_path)) == 1
    output = capsys.readouterr().err.strip()
    assert message in output and len(output.splitlines()) == 1


def test_where_no_clip_could_be_used_the_command_fails(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(source, tmp_path / "own"))
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"damaged")
    assert exits("prepare", "casme3", str(root), "--out", f"{tmp_path}/maps") == 1
    assert "none of the clips could be used" in capsys.readouterr().err


def test_an_interrupt_shows_how_to_continue(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bar:
        def __enter__(self) -> object:
            return self._told

        def __exit__(self, *_: object) -> None:
            pass

        def _told(self, done: int, total: int, newest: str | None) -> None:
            if done:
                raise KeyboardInterrupt

    monkeypatch.setattr(command, "_bar", Bar)
    assert exits("prepare", "casme3", str(source), "--out", f"{tmp_path}/maps") == 1
    assert "finished clips are kept" in capsys.readouterr().err
    assert len(list((tmp_path / "maps" / "casme3" / "maps").iterdir())) == 1


def test_a_cluster_makes_the_maps_where_one_is_asked_for(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, asked = PoolHere(), list[tuple[str, str, Path]]()

    def pool_of(address: str, say: object, device: str, shared: Path) -> OpenPool:
        asked.append((address, device, shared))
        return pool.open

    monkeypatch.setattr("apexstream.cluster.folds.pool_of", pool_of)
    assert exits("prepare", "casme3", str(source), "--out", f"{tmp_path}/maps", "--cluster", "head:1") == 0
    assert pool.given == [2]
    assert asked[0][:2] == ("head:1", "cpu") and asked[0][2].parent == source, "nodes must see what is in the folder"
