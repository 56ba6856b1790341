from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.errors import ConfigError, OutputError, WeightsError
from engine.models import build
from engine.models.committee import Committee
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.recipe import Recipe
from training.runs import load_run, save_run

OPTIONS = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
RECIPE = Recipe.model_validate(
    {"name": "tiny", "model": {"name": "ahmsa", "options": OPTIONS}, "fit": {"epochs": 1, "batch": 2, "learning_rate": 1.0}}
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


@pytest.fixture
def run(data: FlowMaps, tmp_path: Path) -> Path:
    save_run(tmp_path / "run", RECIPE, Committee([build("ahmsa", **OPTIONS)]), data, [(0, 1, 1.25)])
    return tmp_path / "run"


def test_a_run_comes_back_as_it_was_saved(run: Path, data: FlowMaps) -> None:
    recipe, network, told = load_run(run)
    state = torch.load(run / "fitted.pt", weights_only=True)
    assert recipe.model_dump(mode="json") == RECIPE.model_dump(mode="json") and not network.training
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert told["maps"] == len(data) and told["databases"]["casme2"] == {"negative": 2, "positive": 2, "surprise": 2}
    assert (run / "losses.csv").read_text().splitlines() == ["member,epoch,loss", "0,1,1.25"]


def test_a_folder_without_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a finished training run"):
        load_run(tmp_path)


def test_damaged_parameters_are_told(run: Path) -> None:
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


def test_a_place_that_cannot_be_written_is_told(data: FlowMaps, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_run(tmp_path / "file" / "run", RECIPE, Committee([build("ahmsa", **OPTIONS)]), data, [])
