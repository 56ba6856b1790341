"""What holds for every network, and the size of each part of those that are published or shipped."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor, nn

from engine.config import RecognizerSettings
from engine.errors import ConfigError, WeightsError
from engine.models import ARCHITECTURES, Architecture, build
from engine.models.committee import Committee
from engine.recognition.recognizer import Recognizer
from engine.weights import weights_for
from training.export import TOLERANCE, export_onnx, write_card
from training.recipe import Recipe

SMALL: dict[str, dict[str, Any]] = {
    "ahmsa": {"width": 16, "heads": 2, "repeats": (1, 1, 2)},
    "htnet": {"width": 24, "heads": 3, "repeats": (1, 1, 2)},
    "hfa": {"width": 32, "side": 64},
}
"""Options of a version of each network that is fast enough to be tried out."""

PARTS: dict[str, dict[str, int]] = {
    "ahmsa": {
        **{"embed": 9_472, "place": 1_024, "levels.0": 71_456, "levels.1": 71_456, "levels.2": 285_824},
        **{"between.0": 37_056, "between.1": 37_056, "norm": 128, "head": 4_355},
    },
    "htnet": {
        **{"embed": 37_888, "scalars": 3, "levels.0.0": 787_968, "levels.0.1": 787_968, "levels.1.0": 3_146_752},
        **{"levels.1.1": 3_146_752, **{f"levels.2.{i}": 12_576_768 for i in range(8)}},
        **{"between.0": 1_181_184, "between.1": 4_721_664, "norm": 2_048, "head": 3_075},
    },
    "hfa": {
        **{"near.stem": 1_856, "near.stages.0": 46_384, "near.stages.1": 119_728, "near.stages.2": 477_344},
        **{"near.stages.3": 1_906_240, "far.stem": 65_952, "far.levels.0": 45_952, "far.levels.1": 146_752},
        **{"far.levels.2": 711_680, "far.levels.3": 2_799_616, "scales": 15_247_556, "channels": 2_623_488, "head": 1_539},
    },
}
"""Parameters of each part at its own size, 3 classes."""


def small(name: str) -> nn.Module:
    torch.manual_seed(3)
    return build(name, **SMALL[name]).eval()


def maps(name: str, count: int) -> Tensor:
    side = SMALL[name].get("side", 28)
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def planned(name: str, num_classes: int = 3, **options: Any) -> nn.Module:
    """The network at its own size, without memory for its parameters."""
    with torch.device("meta"):
        return build(name, num_classes, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_part_has_as_many_parameters_as_published(name: str) -> None:
    sizes = {n: p.numel() for n, p in planned(name).named_parameters()}
    found = {part: sum(s for n, s in sizes.items() if n == part or n.startswith(f"{part}.")) for part in PARTS[name]}
    assert found == PARTS[name]
    assert sum(sizes.values()) == sum(found.values())


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("ahmsa", {}, 517_827),
        ("htnet", {}, 114_429_446),
        ("htnet", {"repeats": (2, 2, 10)}, 139_582_982),
        ("hfa", {}, 24_194_087),
        ("hfa", {"side": 64}, 24_194_087),
    ],
)
def test_parameters_in_all(name: str, options: dict[str, Any], count: int) -> None:
    assert sum(p.numel() for p in planned(name, **options).parameters()) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_at_its_own_size_it_takes_its_own_input(name: str) -> None:
    side = ARCHITECTURES[name].side
    assert planned(name, 4).eval()(torch.rand(2, 3, side, side, device="meta")).shape == (2, 4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_finite_and_differ_between_maps(name: str) -> None:
    network = small(name)
    with torch.inference_mode():
        for given in (maps(name, 4), torch.zeros_like(maps(name, 1)), torch.ones_like(maps(name, 1))):
            assert torch.isfinite(network(given)).all()
        assert network(maps(name, 4)).std(0).min() > 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    network = small(name).train()
    nn.functional.cross_entropy(network(maps(name, 6)), torch.arange(6) % 3).backward()  # type: ignore[no-untyped-call]
    unused = [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert unused == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_along_the_gradient_lowers_the_loss(name: str) -> None:
    network, given, truth = small(name).train(), maps(name, 6), torch.arange(6) % 3
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(network(given), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < 0.95 * losses[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_answer_does_not_depend_on_its_batch(name: str) -> None:
    network, given = small(name), maps(name, 5)
    with torch.inference_mode():
        together, alone = network(given), torch.cat([network(one[None]) for one in given])
        turned = network(given.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together, turned, atol=1e-5)  # measured: 6e-7


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "ahmsa"])
def test_onnx_runtime_answers_alike_for_any_batch(name: str, tmp_path: Path) -> None:
    """The tests of `training.export` show it of ahmsa."""
    network, path = small(name), tmp_path / "net.onnx"
    export(network, maps(name, 3), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 4):
        given = maps(name, count)
        with torch.inference_mode():
            expected = network(given).numpy()
        (found,) = session.run(None, {"maps": given.numpy()})
        assert np.abs(found - expected).max() < 1e-5  # measured: 1e-6 here, 1.6e-6 at the networks' own sizes


def export(network: nn.Module, example: Tensor, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, optimize=False, input_names=["maps"], dynamic_shapes=[{0: batch}], verbose=False
        )
    assert program is not None
    program.save(str(path))


TINY = """
import torch
from torch import nn


class TinyNet(nn.Module):
    def __init__(self, num_classes: int = 3, *, side: int = 28) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * side * side, num_classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.layer(maps.flatten(1))
"""


def test_a_network_is_added_by_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built, configured, exported and run without being named anywhere else."""
    (tmp_path / "tiny_network.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ARCHITECTURES, "tiny", Architecture("tiny_network", "TinyNet", 28))
    assert RecognizerSettings(network="tiny").network == "tiny"
    fit = {"epochs": 1, "batch": 2, "learning_rate": 1.0}
    recipe = Recipe.model_validate({"name": "tiny", "model": {"name": "tiny", "members": 2, "input": "whole"}, "fit": fit})
    network = Committee([build("tiny") for _ in range(2)])
    path = tmp_path / "net.onnx"
    assert export_onnx(network, recipe, path) <= TOLERANCE
    facts = {"data": "none", "licence": "none", "temperature": 1.0, "uncertain_below": 0.5}
    card = write_card(path, recipe, facts)
    assert Recognizer(RecognizerSettings(weights=path)).card == card
    with pytest.raises(WeightsError, match="no weights of tiny come with apexstream"):
        weights_for("tiny")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'resnet'; there are ahmsa, htnet, hfa"):
        build("resnet")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="widht"):
        build(name, widht=32)


@pytest.mark.parametrize(("name", "options"), [("ahmsa", {"dropout": 2}), ("htnet", {"patch": 0}), ("hfa", {"width": "wide"})])
def test_a_value_that_cannot_be_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be built with these options"):
        build(name, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_side_registered_is_the_side_taken(name: str) -> None:
    assert signature(type(build(name, **SMALL[name]))).parameters["side"].default == ARCHITECTURES[name].side


def test_one_class_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="at least two classes"):
        build("ahmsa", 1)
