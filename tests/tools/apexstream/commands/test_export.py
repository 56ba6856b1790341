from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apexstream.cli import main
from apexstream.commands.export import licence
from engine import runtime
from engine.models import build
from engine.models.committee import Committee
from engine.runtime import BackendName, load
from engine.runtime.gpu import Gpu
from engine.runtime.trt import Libraries
from engine.weights import load_card
from tests.bindings import Cuda, Double, small_network
from tests.flowmaps import write_dataset
from training.datasets import htnet_3db
from training.fit import fit
from training.fold_record import FoldResult
from training.recipe import KernelSettings, Recipe
from training.report import assess, protocol, write_summary
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
    header = {"recipe": RECIPE.model_dump(mode="json"), "maps": len(data), "data": data.digest()}
    write_summary(assess(header, folds).summary, root / "summary.json")
    return root


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """The run as a calibrated file with its card."""
    out = folder / "net.onnx"
    given = ("--evaluation", f"{folder}/summary.json", "--data", f"{folder}/set")
    assert exits("export", f"{folder}/run", "--out", str(out), *given) == 0
    return out


@pytest.fixture
def exported_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's file is not made again, which takes seconds: for tests of what is decided and written besides."""

    def copied(network: Committee, recipe: Recipe, out: Path, **_: object) -> float:
        shutil.copyfile(exported, out)
        return 0.0

    monkeypatch.setattr("training.export.export_onnx", copied)


def changed(folder: Path, into: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The evaluation with something else in it, as a file."""
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    path = into / "summary.json"
    path.write_text(json.dumps(summary))
    return path


def test_an_evaluated_run_becomes_a_calibrated_file_with_its_card(folder: Path, exported: Path) -> None:
    card = load_card(exported)
    assert card.temperature > 1 and card.scores["right_when_said"] == 0.8 and card.recipe == "tiny"
    assert card.scores["uf1_mean"] == card.scores["a_uf1"] and "uf1_spread" not in card.scores  # one seed, one database
    assert 0 <= float(card.scores["calibration_error"]) < float(card.scores["calibration_error_perfect_p95"])
    maps = np.random.default_rng(0).random((4, 3, 28, 28), np.float32)
    network = Committee([build("ahmsa", **OPTIONS)]).eval()
    network.load_state_dict(torch.load(folder / "run" / "fitted.pt", weights_only=True))
    with torch.inference_mode():
        expected = torch.softmax(network.logits(torch.from_numpy(maps)) / card.temperature, 1).numpy()
    assert np.abs(load(exported)(maps) - expected).max() < 1e-5


def test_a_run_with_a_kernel_machine_on_whole_maps_becomes_a_file(folder: Path, tmp_path: Path) -> None:
    model = RECIPE.model.model_copy(update={"input": "whole", "options": {**OPTIONS, "standardize": True}})
    recipe = RECIPE.model_copy(update={"model": model, "kernel": KernelSettings(share=0.3, centres=12)})
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


def test_an_evaluation_of_other_data_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, out = changed(folder, tmp_path, lambda s: s.update(data="0123456789abcdef")), tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--evaluation", str(other)) == 1
    assert "judges other flow maps than the run was fitted to" in capsys.readouterr().err and not out.exists()


@pytest.mark.usefixtures("exported_before")
def test_a_run_that_does_not_tell_its_data_apart_is_held_by_their_number(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "net.onnx"
    shutil.copytree(folder / "run", run)
    reported = json.loads((run / "data.json").read_text())
    del reported["data"]
    (run / "data.json").write_text(json.dumps(reported))
    fewer = changed(folder, tmp_path, lambda s: s.update(maps=3))
    assert exits("export", str(run), "--out", str(out), "--evaluation", str(fewer)) == 1
    assert "maps 3 rather than 12" in capsys.readouterr().err
    assert exits("export", str(run), "--out", str(out), "--evaluation", f"{folder}/summary.json") == 0


@pytest.mark.usefixtures("exported_before")
def test_a_run_under_another_seed_is_of_the_recipe_that_was_judged(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = changed(folder, tmp_path, lambda s: s["recipe"].update(seed=7)), tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--evaluation", str(other)) == 0
    assert load_card(out).model_id in capsys.readouterr().out


@pytest.mark.usefixtures("exported_before")
def test_an_evaluation_of_before_recipes_grew_is_still_the_recipes(folder: Path, tmp_path: Path) -> None:
    older = changed(folder, tmp_path, lambda s: (s["recipe"].pop("kernel"), s["recipe"]["fit"].pop("schedule")))
    assert exits("export", f"{folder}/run", "--out", f"{tmp_path}/net.onnx", "--evaluation", str(older)) == 0


@pytest.mark.usefixtures("exported_before")
def test_the_card_states_that_groups_were_judged(folder: Path, tmp_path: Path) -> None:
    groups = changed(folder, tmp_path, lambda s: s.update(groups=5, protocol=protocol(5)))
    assert exits("export", f"{folder}/run", "--out", f"{tmp_path}/net.onnx", "--evaluation", str(groups)) == 0
    scores = load_card(tmp_path / "net.onnx").scores
    assert scores["groups"] == 5 and "NOT leave one subject out" in str(scores["protocol"])


@pytest.mark.parametrize(
    ("databases", "message"),
    [
        (["casme2", "smic", "samm"], "SMIC, SAMM and CASME II are released for non-commercial research"),
        (["samm", "casme3"], "SAMM and CAS(ME)³ are released"),
        (["casme3"], "research only: CAS(ME)³ is released for"),
        (["samm", "own"], "SAMM is released for non-commercial research; the terms of own hold"),
        (["own"], "research only: the terms of own hold"),
    ],
)
def test_the_licence_names_what_the_network_was_fitted_to(databases: list[str], message: str) -> None:
    assert message in licence(databases) and licence(databases).endswith("(LICENSE-WEIGHTS)")


def test_an_evaluation_that_leaves_nothing_to_say_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "summary.json").read_text().replace('"precision_reached": true', '"precision_reached": false')
    (tmp_path / "summary.json").write_text(text)
    out = tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--evaluation", f"{tmp_path}/summary.json") == 1
    assert "lower --precision" in capsys.readouterr().err and not out.exists()


def test_what_cannot_be_exported_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, out, message in (("none", "net.onnx", "not the folder"), ("run", "net.pt", "must end in .onnx")):
        assert exits("export", f"{folder}/{run}", "--out", f"{tmp_path}/{out}") == 1
        assert message in capsys.readouterr().err


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A machine with a GPU and TensorRT, both doubles of the real bindings."""
    cuda = Cuda()
    libraries = Libraries(Double(cuda), cuda, Gpu("NVIDIA Test", (9, 0)))
    monkeypatch.setattr(Libraries, "here", lambda: libraries)
    monkeypatch.setitem(runtime.NEEDS, "tensorrt", ("onnx",))
    monkeypatch.setitem(runtime.DEVICE, "tensorrt", lambda: None)
    return cuda


@pytest.mark.usefixtures("gpu", "exported_before")
def test_a_run_is_compiled_beside_its_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--backend", "tensorrt") == 0
    (engine,) = tmp_path.glob("net-*-sm_90-float16.engine")
    output = capsys.readouterr().out
    assert f"{engine}: " in output and "for NVIDIA Test, TensorRT 11" in output and load_card(out).name == "net"


@pytest.mark.usefixtures("gpu")
def test_an_exported_file_is_compiled_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_network(tmp_path / "net.onnx")
    for _ in range(2):
        assert exits("export", str(path), "--backend", "tensorrt") == 0
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 2 and output[0] == output[1] and "-float16.engine: " in output[0]


@pytest.mark.usefixtures("gpu")
def test_what_is_left_to_do_with_an_exported_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_network(tmp_path / "net.onnx")
    assert exits("export", str(path)) == 2 and exits("export", str(tmp_path)) == 2
    assert "exported already" in capsys.readouterr().err.replace("\n", " ")
    assert exits("export", f"{tmp_path}/none.onnx", "--backend", "tensorrt") == 1
    assert "there is no network file" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_written_and_the_alternative_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(runtime.NEEDS, "tensorrt", ("onnx",))
    monkeypatch.setitem(runtime.DEVICE, "tensorrt", lambda: "no NVIDIA driver")
    out = tmp_path / "net.onnx"
    assert exits("export", f"{folder}/run", "--out", str(out), "--backend", "tensorrt") == 1
    output = capsys.readouterr().err
    assert "TensorRT cannot compile the network here: no NVIDIA driver; run this on the machine with the GPU" in output
    assert not list(tmp_path.iterdir())
