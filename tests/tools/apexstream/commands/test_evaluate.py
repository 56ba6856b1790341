from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from apexstream.cli import main
from tests.flowmaps import write_dataset
from tests.training.test_pool import PoolHere
from training.fold_record import FoldResult
from training.loso import evaluate as loso_evaluate
from training.pool import OpenPool
from training.report import LEAK

TINY = """name = "tiny"
[model]
name = "ahmsa"
options = { width = 8, heads = 2, repeats = [1, 1, 1] }
[fit]
epochs = 1
batch = 12
learning_rate = 1e-3
"""


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    write_dataset(tmp_path / "set", per_class=1)
    return tmp_path


def evaluate(folder: Path, *more: str) -> object:
    given = ("--config", f"{folder}/tiny.toml", "--data", f"{folder}/set", "--out", f"{folder}/out", "--device", "cpu")
    return exits("evaluate", *given, *more)


@pytest.fixture(scope="module")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "tiny.toml").write_text(TINY)
    write_dataset(folder / "set", per_class=1)
    assert evaluate(folder) == 0
    return folder


@pytest.fixture
def evaluated(evaluated_once: Path, tmp_path: Path) -> Path:
    """The folder after an evaluation, the test's own."""
    return shutil.copytree(evaluated_once, tmp_path / "evaluated")


def test_scores_overall_and_per_database_are_printed_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--seeds", "2", "--precision", "0.4") == 0
    output = capsys.readouterr().out
    assert all(
        word in output for word in ("UF1", "UAR", "casme2", "samm", "smic", "seed 1", "calibration error", "report.html")
    )
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert list(summary["seeds"]) == ["0", "1"] and summary["folds"] == 8
    assert sum(map(sum, summary["seeds"]["0"]["all"]["confusion"])) == 12
    assert f"{summary['seeds']['1']['all']['uf1']:.4f}" in output and f"{summary['uf1']['mean']:.4f}" in output
    assert summary["confidence"]["precision_asked"] == 0.4 and "40.0%" in output


def test_the_folder_documents_the_run(evaluated: Path) -> None:
    out = evaluated / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("folds.jsonl", "summary.json", "predictions.csv", "recipe.json", "run.json"),
        *("report.html", "pictures"),
    }
    assert json.loads((out / "recipe.json").read_text())["fit"]["epochs"] == 1
    made = json.loads((out / "run.json").read_text())
    assert made["report"]["torch"] == metadata.version("torch")
    assert made["folds"] == [{"folds": 4, "device": "cpu", **made["report"]}]
    assert len((out / "predictions.csv").read_text().splitlines()) == 1 + 12
    assert "tiny" in (out / "report.html").read_text()


def test_the_page_is_made_again_without_fitting(evaluated: Path) -> None:
    out = evaluated / "out"
    page, record = (out / "report.html").read_text(), (out / "folds.jsonl").read_bytes()
    (out / "report.html").unlink()
    assert evaluate(evaluated) == 0
    assert (out / "report.html").read_text() == page and (out / "folds.jsonl").read_bytes() == record


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_fitted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.device._refusal", lambda: "PyTorch sees no NVIDIA GPU")
    assert evaluate(folder, "--device", "cuda") == 1 and not (folder / "out").exists()
    assert "no GPU can be used: PyTorch sees no NVIDIA GPU; --device cpu works" in capsys.readouterr().err


def test_folds_are_stacked_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands for the GPU."""
    seen: list[Any] = []

    def noted(*given: Any, **options: Any) -> list[FoldResult]:
        seen.append(options["stacked_on"])
        return loso_evaluate(*given, **options | {"stacked_on": torch.device("cpu")})

    monkeypatch.setattr("training.loso.evaluate", noted)
    monkeypatch.setattr("training.device._refusal", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert evaluate(folder, "--device", "auto", "--select-on-test") == 0
    assert seen == [torch.device("cuda", 0)]
    assert len((folder / "out" / "folds.jsonl").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("precision", ["0", "1", "75"])
def test_a_precision_that_is_no_share_is_refused_before_anything_is_fitted(folder: Path, precision: str) -> None:
    assert evaluate(folder, "--precision", precision) == 2
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("heads = 2", "heads = 0", "ahmsa: width, heads, reduction, expansion and patch must be at least 1"),
        ("[model]", "seed = -1\n[model]", "seed: Input should be greater"),
        ("[fit]", 'input = "whole-224"\n[fit]', "ahmsa takes maps of 28 x 28, and whole-224 is 224 x 224"),
    ],
)
def test_a_recipe_that_cannot_be_fitted_is_refused_before_the_data_are_read(
    folder: Path, before: str, after: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tiny.toml").write_text(TINY.replace(before, after))
    (folder / "set").rename(folder / "gone")
    assert evaluate(folder) == 1
    reported = capsys.readouterr().err
    assert message in reported and "unexpected error" not in reported


def test_the_leak_is_shown_beside_the_honest_figure_and_labelled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--select-on-test") == 0
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["peeked"]["label"] == LEAK and summary["peeked"]["uar"]["mean"] >= summary["uar"]["mean"]
    output, page = capsys.readouterr().out, (folder / "out" / "report.html").read_text()
    assert output.index("last epoch, fixed beforehand") < output.index(LEAK) and LEAK in page


def test_groups_of_subjects_are_labelled_as_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--groups", "2") == 0
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert (summary["groups"], summary["folds"]) == (2, 2) and set(summary["databases"]) == {"casme2", "samm", "smic"}
    assert "2 subject-disjoint groups, NOT leave one subject out" in capsys.readouterr().out
    assert "Judged on 2 groups of subjects" in (folder / "out" / "report.html").read_text()


def test_a_second_call_goes_on_with_the_first_ones_folds(evaluated: Path) -> None:
    record = evaluated / "out" / "folds.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3]))
    assert evaluate(evaluated) == 0
    after = record.read_text().splitlines(keepends=True)
    assert after[:3] == lines[:3] and len(after) == len(lines)


def test_another_recipes_folds_are_not_gone_on_with(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (evaluated / "tiny.toml").write_text(TINY.replace("epochs = 1", "epochs = 2"))
    assert evaluate(evaluated) == 1
    assert "of another recipe" in capsys.readouterr().err


def test_a_cluster_fits_the_folds_where_one_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, asked = PoolHere(), list[tuple[str, str, str]]()

    def pool_of(address: str, say: object, device: str, shared: Path) -> OpenPool:
        asked.append((address, device, shared.name))
        return pool.open

    monkeypatch.setattr("apexstream.cluster.folds.pool_of", pool_of)
    assert evaluate(folder, "--cluster", "head:1", "--device", "cuda") == 0  # which this machine need not have
    assert (asked, pool.given) == ([("head:1", "cuda", "folds.jsonl")], [4])
