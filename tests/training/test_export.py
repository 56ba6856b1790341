from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from engine.errors import OutputError, WeightsError
from engine.models import build
from engine.models.committee import Committee, assemble, kernel_of
from engine.models.kernel import KernelMachine, compared
from engine.runtime import BackendName, load
from engine.runtime.eager import rebuild
from engine.weights import Card, load_card
from training import export
from training.recipe import KernelSettings, Recipe

OPTIONS: dict[str, Any] = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"name": "ahmsa", "members": 2, "options": OPTIONS},
        "fit": {"epochs": 1, "batch": 2, "learning_rate": 1.0},
    }
)

FACTS: dict[str, Any] = {"data": "none", "licence": "none", "temperature": 0.7, "uncertain_below": 0.5, "scores": {}}
PROBES = np.random.default_rng(9).random((3, 3, 28, 28), np.float32)


@pytest.fixture(scope="module")
def network() -> Committee:
    torch.manual_seed(4)
    return Committee([build("ahmsa", **OPTIONS) for _ in range(2)], temperature=0.7).eval()


def with_kernel(share: float = 0.3) -> tuple[Committee, Recipe]:
    """A committee of whole maps with a kernel machine as if fitted to seven maps of noise, and its recipe."""
    torch.manual_seed(5)
    kernel = KernelMachine(3, 7)
    kernel.centres, kernel.weights = compared(torch.rand(7, 3, 28, 28)), torch.randn(7, 3)
    kernel.bias, kernel.rate = torch.randn(3), torch.tensor(0.005)
    options = {**OPTIONS, "standardize": True}
    model = RECIPE.model.model_copy(update={"input": "whole", "options": options})
    recipe = RECIPE.model_copy(update={"model": model, "kernel": KernelSettings(share=share)})
    return Committee([build("ahmsa", **options) for _ in range(2)], 0.7, kernel, share).eval(), recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Committee, Recipe, Path]:
    """The committee with a kernel machine, its recipe and its file."""
    network, recipe = with_kernel()
    path = tmp_path_factory.mktemp("kernel") / "whole.onnx"
    assert export.export_onnx(network, recipe, path) <= export.TOLERANCE
    return network, recipe, path


@pytest.fixture(scope="module")
def written(network: Committee, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    assert export.export_onnx(network, RECIPE, path, probes=PROBES) <= export.TOLERANCE
    return path


@pytest.mark.parametrize("backend", ["ort", "eager"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_file_answers_as_the_network_does(network: Committee, written: Path, backend: BackendName, count: int) -> None:
    maps = np.random.default_rng(count).random((count, 3, 28, 28), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(maps)).numpy()
    assert np.abs(load(written, backend=backend)(maps) - expected).max() <= export.TOLERANCE


@pytest.mark.parametrize("backend", ["ort", "eager"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_a_kernel_machine_the_file_answers_alike(
    whole: tuple[Committee, Recipe, Path], backend: BackendName, count: int
) -> None:
    network, _, path = whole
    maps = np.random.default_rng(count).random((count, 3, 28, 28), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(maps)).numpy()
        alone, kernel = network.each(torch.from_numpy(maps))
    assert np.abs(load(path, backend=backend)(maps) - expected).max() <= export.TOLERANCE
    assert kernel is not None and not torch.allclose(alone.mean(0), kernel, atol=0.1)  # neither is the whole answer


def test_the_file_and_its_card_describe_the_kernel_machine(whole: tuple[Committee, Recipe, Path]) -> None:
    network, recipe, path = whole
    rebuilt, description = rebuild(path)
    assert description["kernel"] == {"centres": 7, "share": 0.3} and rebuilt.kernel is not None
    assert all(torch.equal(value, rebuilt.state_dict()[name]) for name, value in network.state_dict().items())
    export.write_card(path, recipe, FACTS, kernel_of(network))
    card = load_card(path)
    assert card.kernel == {"centres": 7, "share": 0.3} and card.input == "whole"
    again = assemble(card.network, card.options, card.members, card.kernel, len(card.classes))
    assert export.shapes(again) == export.shapes(network)


def test_a_kernel_machine_that_the_recipe_has_not_or_the_other_way_round_is_refused(network: Committee, tmp_path: Path) -> None:
    with_one, recipe = with_kernel()
    for odd, other in (
        (with_one, recipe.model_copy(update={"kernel": None})),
        (network, RECIPE.model_copy(update={"kernel": KernelSettings()})),
    ):
        with pytest.raises(WeightsError, match="is not 2 x ahmsa of the recipe tiny"):
            export.export_onnx(odd, other, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


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
        export.write_checked(model, network, path, probes=PROBES)
    assert path.read_bytes() == b"the one before" and list(tmp_path.iterdir()) == [path]


def test_a_network_that_answers_no_numbers_is_not_written(network: Committee, written: Path, tmp_path: Path) -> None:
    spoiled = deepcopy(network)
    with torch.no_grad():
        next(iter(spoiled.parameters())).fill_(torch.nan)
    with pytest.raises(WeightsError, match="own answers are not finite; fit it again"):
        export.write_checked(onnx.load(str(written)), spoiled, tmp_path / "net.onnx", probes=PROBES)
    assert not list(tmp_path.iterdir())


def test_a_card_that_cannot_be_written_leaves_nothing(written: Path, tmp_path: Path) -> None:
    network = tmp_path / "net.onnx"
    network.write_bytes(written.read_bytes())
    (tmp_path / "net.json").mkdir()
    with pytest.raises(OutputError, match=r"net\.json cannot be written"):
        export.write_card(network, RECIPE, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.json", "net.onnx"]


def test_a_recipe_of_another_network_is_refused(network: Committee, tmp_path: Path) -> None:
    other = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"members": 1})})
    with pytest.raises(WeightsError, match="is not 1 x ahmsa of the recipe tiny"):
        export.export_onnx(network, other, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_error(network: Committee, written: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export.write_checked(onnx.load(str(written)), network, tmp_path / "file" / "net.onnx", probes=PROBES)


def test_the_card_fits_the_file(written: Path) -> None:
    card = export.write_card(written, RECIPE, FACTS)
    assert load_card(written) == Card.model_validate_json(card.model_dump_json())
    assert (card.name, card.members, card.classes) == ("net", 2, ("negative", "positive", "surprise"))
    assert card.kernel is None and (card.input, card.input_shape) == ("five-regions", (3, 28, 28))
