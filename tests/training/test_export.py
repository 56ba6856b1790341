from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from engine.errors import OutputError, WeightsError
from engine.models import build
from engine.models.committee import Committee
from engine.runtime import load
from engine.weights import Card, load_card
from training import export
from training.recipe import Recipe

OPTIONS = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"name": "ahmsa", "members": 2, "options": OPTIONS},
        "fit": {"epochs": 1, "batch": 2, "learning_rate": 1.0},
    }
)


@pytest.fixture(scope="module")
def network() -> Committee:
    torch.manual_seed(4)
    return Committee([build("ahmsa", **OPTIONS) for _ in range(2)], temperature=0.7).eval()


@pytest.fixture(scope="module")
def written(network: Committee, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    probes = np.random.default_rng(9).random((3, 3, 28, 28), np.float32)
    assert export.export_onnx(network, RECIPE, path, probes=probes) <= export.TOLERANCE
    return path


@pytest.mark.parametrize("backend", ["ort", "eager"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_file_answers_as_the_network_does(network: Committee, written: Path, backend: str, count: int) -> None:
    maps = np.random.default_rng(count).random((count, 3, 28, 28), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(maps)).numpy()
    runner = load(written, backend=backend)  # type: ignore[arg-type]
    assert np.abs(runner(maps) - expected).max() <= export.TOLERANCE


def test_nothing_of_the_machine_is_in_the_file(written: Path) -> None:
    content = written.read_bytes()
    assert str(Path(export.__file__).parents[1]).encode() not in content and b"torch/" not in content


def test_a_model_whose_answers_differ_is_not_written(network: Committee, written: Path, tmp_path: Path) -> None:
    model = onnx.load(str(written))
    bias = next(i for i in model.graph.initializer if i.name == "members.1.head.3.bias")
    changed = numpy_helper.to_array(bias) + np.array([1e-3, 0, 0], np.float32)
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(WeightsError, match="was not written: its answers differ"):
        export.write_checked(model, network, path)
    assert path.read_bytes() == b"the one before" and list(tmp_path.iterdir()) == [path]


def test_a_recipe_of_another_network_is_refused(network: Committee, tmp_path: Path) -> None:
    other = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"members": 1})})
    with pytest.raises(WeightsError, match="is not 1 x ahmsa of the recipe tiny"):
        export.export_onnx(network, other, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(network: Committee, written: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_checked(onnx.load(str(written)), network, tmp_path / "file" / "net.onnx")


def test_the_card_fits_the_file(written: Path) -> None:
    facts = {"data": "none", "licence": "none", "temperature": 0.7, "uncertain_below": 0.5, "scores": {}}
    card = export.write_card(written, RECIPE, facts)
    assert load_card(written) == Card.model_validate_json(card.model_dump_json())
    assert (card.name, card.members, card.classes) == ("net", 2, ("negative", "positive", "surprise"))
