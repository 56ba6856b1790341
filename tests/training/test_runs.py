from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import ConfigError, OutputError, WeightsError
from engine.models import build
from engine.models.committee import Committee
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.fit import fit
from training.recipe import KernelSettings, PretrainSettings, Recipe
from training.runs import begin_run, load_run, save_run

OPTIONS: dict[str, Any] = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
RECIPE = Recipe.model_validate(
    {"name": "tiny", "model": {"name": "ahmsa", "options": OPTIONS}, "fit": {"epochs": 1, "batch": 2, "learning_rate": 1e-3}}
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


@pytest.fixture
def run(data: FlowMaps, tmp_path: Path) -> Path:
    save_run(tmp_path / "run", RECIPE, Committee([build("ahmsa", **OPTIONS)]), data, [("fitting", 0, 1, 1.25)])
    return tmp_path / "run"


def test_a_run_comes_back_as_it_was_saved(run: Path, data: FlowMaps) -> None:
    recipe, network, recorded = load_run(run)
    state = torch.load(run / "fitted.pt", weights_only=True)
    assert recipe.model_dump(mode="json") == RECIPE.model_dump(mode="json") and not network.training
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert recorded["maps"] == len(data) and recorded["databases"]["casme2"] == {"negative": 2, "positive": 2, "surprise": 2}
    assert (run / "losses.csv").read_text().splitlines() == ["stage,member,epoch,loss", "fitting,0,1,1.25"]


WITH_KERNEL = RECIPE.model_copy(update={"kernel": KernelSettings(share=0.2, centres=60)})


def test_a_run_with_a_kernel_machine_comes_back_with_it(data: FlowMaps, tmp_path: Path) -> None:
    fitted = fit(WITH_KERNEL, data)
    fitted.temperature.fill_(1.5)
    save_run(tmp_path / "run", WITH_KERNEL, fitted, data, [])
    recipe, network, _ = load_run(tmp_path / "run")
    assert recipe.kernel == WITH_KERNEL.kernel and network.kernel is not None and network.kernel_share == 0.2
    maps = torch.from_numpy(data.inputs("five-regions"))
    with torch.inference_mode():
        assert torch.allclose(network(maps), fitted(maps), atol=1e-6)  # its arrays lie otherwise in memory: 1.2e-7 measured
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in fitted.state_dict().items())


def test_a_run_with_pre_training_comes_back(data: FlowMaps, tmp_path: Path) -> None:
    before = PretrainSettings(maps=100, epochs=1, batch=50, learning_rate=1e-3, members=0, after=RECIPE.fit)
    recipe = RECIPE.model_copy(update={"pretrain": before})
    save_run(tmp_path / "run", recipe, Committee([build("ahmsa", **OPTIONS)]), data, [("pre-training", 0, 1, 2.5)])
    assert load_run(tmp_path / "run")[0].pretrain == before


@pytest.mark.parametrize(("with_kernel", "changed"), [(True, "null"), (False, '{"share": 0.5}')])
def test_a_recipe_that_does_not_speak_of_the_kernel_machine_is_refused(
    data: FlowMaps, tmp_path: Path, with_kernel: bool, changed: str
) -> None:
    recipe = WITH_KERNEL if with_kernel else RECIPE
    save_run(tmp_path / "run", recipe, fit(recipe, data), data, [])
    recorded = json.loads((tmp_path / "run" / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({**recorded, "kernel": json.loads(changed)}))
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_run(tmp_path / "run")


def test_a_folder_without_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a finished training run"):
        load_run(tmp_path)


def test_damaged_parameters_are_an_error(run: Path) -> None:
    whole = (run / "fitted.pt").read_bytes()
    (run / "fitted.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"fitted\.pt is damaged"):
        load_run(run)
    (run / "fitted.pt").write_bytes(b"no parameters")
    with pytest.raises(WeightsError, match=r"fitted\.pt is damaged"):
        load_run(run)


def test_parameters_of_another_network_are_refused(run: Path) -> None:
    text = (run / "recipe.json").read_text()
    (run / "recipe.json").write_text(text.replace('"width": 8', '"width": 16'))
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_run(run)


def test_a_place_that_cannot_be_written_is_an_error(data: FlowMaps, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_run(tmp_path / "file" / "run", RECIPE, Committee([build("ahmsa", **OPTIONS)]), data, [])


def test_a_place_that_cannot_be_written_is_an_error_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the run cannot be written to"):
        begin_run(tmp_path / "file" / "run")
    begin_run(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []
    (tmp_path / "new" / "run" / "fitted.pt").write_bytes(b"precious")
    with pytest.raises(OutputError, match="holds a finished run already"):
        begin_run(tmp_path / "new" / "run")
