from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.models import build
from engine.models.committee import Committee
from engine.runtime import BackendName, load
from engine.weights import load_card
from tests.flowmaps import write_dataset
from tools.cli import main
from training.datasets import htnet_3db
from training.fit import fit
from training.loso import FoldResult
from training.recipe import KernelSettings, Recipe
from training.report import summarize, write_summary
from training.runs import load_run, save_run

OPTIONS: dict[str, Any] = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
RECIPE = Recipe.model_validate(
    {"name": "tiny", "model": {"name": "ahmsa", "options": OPTIONS}, "fit": {"epochs": 1, "batch": 2, "learning_rate": 1.0}}
)
BACKENDS: tuple[BackendName, ...] = ("ort", "eager")


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted run, its data, and an evaluation whose answers are right four times in five at a confidence near one."""
    root = tmp_path_factory.mktemp("export")
    data = htnet_3db.load(write_dataset(root / "set", per_class=1))
    save_run(root / "run", RECIPE, Committee([build("ahmsa", **OPTIONS)]), data, [("fitting", 0, 1, 1.0)])
    sure = ((9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0))
    folds = [FoldResult(f"a/{n}", 0, tuple("vwxyz"), (0, 1, 2, 0, 1), (*sure, sure[0], sure[2]), 1.0) for n in range(3)]
    write_summary(summarize({"recipe": RECIPE.model_dump(mode="json"), "maps": 15, "data": "x"}, folds), root / "summary.json")
    return root


def test_an_evaluated_run_becomes_a_calibrated_file_with_its_card(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "net.onnx"
    given = ("--evaluation", f"{folder}/summary.json", "--data", f"{folder}/set")
    assert exits("export", f"{folder}/run", "--out", str(out), *given) == 0
    card = load_card(out)
    assert card.model_id in capsys.readouterr().out
    assert card.temperature > 1 and card.scores["right_when_said"] == 0.8 and card.recipe == "tiny"
    assert card.scores["uf1_mean"] == card.scores["a_uf1"] and "uf1_spread" not in card.scores  # one seed, one database
    assert 0 <= float(card.scores["calibration_error"]) < float(card.scores["calibration_error_perfect_p95"])
    maps = np.random.default_rng(0).random((4, 3, 28, 28), np.float32)
    network = Committee([build("ahmsa", **OPTIONS)]).eval()
    network.load_state_dict(torch.load(folder / "run" / "fitted.pt", weights_only=True))
    with torch.inference_mode():
        expected = torch.softmax(network.logits(torch.from_numpy(maps)) / card.temperature, 1).numpy()
    assert np.abs(load(out)(maps) - expected).max() < 1e-5


def test_a_run_with_a_kernel_machine_on_whole_maps_becomes_a_file(folder: Path, tmp_path: Path) -> None:
    model = RECIPE.model.model_copy(update={"input": "whole", "options": {**OPTIONS, "standardize": True}})
    recipe = RECIPE.model_copy(update={"model": model, "kernel": KernelSettings(share=0.3)})
    data = htnet_3db.load(folder / "set")
    save_run(tmp_path / "run", recipe, fit(recipe, data), data, [])
    out = tmp_path / "net.onnx"
    assert exits("export", f"{tmp_path}/run", "--out", str(out), "--data", f"{folder}/set") == 0
    card = load_card(out)
    assert card.kernel == {"centres": 12, "share": 0.3} and card.input == "whole" and card.temperature == 1
    _, network, _ = load_run(tmp_path / "run")
    maps = data.inputs("whole")
    with torch.inference_mode():
        expected = network(torch.from_numpy(maps)).numpy()
    for backend in BACKENDS:
        assert np.abs(load(out, backend=backend)(maps) - expected).max() < 2e-6


def test_an_evaluation_of_another_recipe_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "summary.json").read_text().replace('"epochs": 1', '"epochs": 7')
    (tmp_path / "summary.json").write_text(text)
    out = tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--evaluation", f"{tmp_path}/summary.json") == 1
    assert "another recipe" in capsys.readouterr().err and not out.exists()


def test_an_evaluation_that_leaves_nothing_to_say_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "summary.json").read_text().replace('"precision_reached": true', '"precision_reached": false')
    (tmp_path / "summary.json").write_text(text)
    out = tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--evaluation", f"{tmp_path}/summary.json") == 1
    assert "lower --precision" in capsys.readouterr().err and not out.exists()


def test_what_cannot_be_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, out, says in (("none", "net.onnx", "not the folder"), ("run", "net.pt", "must end in .onnx")):
        assert exits("export", f"{folder}/{run}", "--out", f"{tmp_path}/{out}") == 1
        assert says in capsys.readouterr().err
