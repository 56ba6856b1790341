from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, WeightsError
from engine.geometry import CANONICAL_KEYPOINTS, INPUTS, keypoints_to_crop
from engine.models import ARCHITECTURES
from engine.recognition.flowmap import network_input, whole_map
from engine.runtime import load
from engine.types import F32
from engine.weights import DEFAULT, default_weights, load_card, shipped, weights_for
from training.datasets.htnet_3db import load as load_maps


def copied(folder: Path, **changes: Any) -> Path:
    path = folder / "net.onnx"
    shutil.copy(default_weights(), path)
    facts = json.loads(default_weights().with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**facts, **changes}))
    return path


def test_the_shipped_card_speaks_of_the_shipped_file() -> None:
    card, runner = load_card(), load(default_weights())
    assert card.classes == runner.classes and card.input_shape == runner.input_shape
    assert card.model_id == f"ahmsa-3db@sha256:{card.sha256[:12]}"


def test_the_shipped_file_is_small() -> None:
    assert default_weights().stat().st_size < 8e6


def test_the_shipped_file_names_no_folder_of_the_machine_that_made_it() -> None:
    content = default_weights().read_bytes()
    assert b"site-packages" not in content and b".py" not in content


@pytest.mark.parametrize(("chance", "label"), [(0.0, "surprise"), (0.01, "uncertain")])
def test_below_the_threshold_the_label_is_uncertain(chance: float, label: str) -> None:
    card = load_card()
    top = card.uncertain_below - chance
    labelled = card.label({"negative": (1 - top) / 2, "positive": (1 - top) / 2, "surprise": top})
    assert labelled == (label, top)


@pytest.mark.parametrize(
    "changes", [{"name": "=HYPERLINK(1)"}, {"name": "a\x1b[2J"}, {"classes": ["<b>", "ok"]}, {"classes": ["a\nb", "ok"]}]
)
def test_a_card_whose_names_are_no_words_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "network.onnx"
    shutil.copy(default_weights(), path)
    card = json.loads(default_weights().with_suffix(".json").read_text()) | changes
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match=rf"cannot be used: {next(iter(changes))}"):
        load_card(path)


def test_another_file_under_the_cards_name_is_refused(tmp_path: Path) -> None:
    path = copied(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="not the file its card speaks of"):
        load_card(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 0}, "temperature"),
        ({"colour": "red"}, "colour"),
        ({"sha256": "12"}, "sha256"),
        ({"input": "half"}, "no input is called 'half'; there are five-regions"),
        ({"input": "whole-224"}, r"whole-224 is \(3, 224, 224\), not input_shape \(3, 28, 28\)"),
        ({"input_shape": (3, 56, 28)}, r"not input_shape \(3, 56, 28\)"),
    ],
)
def test_a_card_that_cannot_be_used_is_reported_with_the_place(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        load_card(copied(tmp_path, **changes))


@pytest.mark.parametrize("kind", INPUTS)
def test_a_card_may_name_any_input_with_its_shape(tmp_path: Path, kind: str) -> None:
    assert load_card(copied(tmp_path, input=kind, input_shape=INPUTS[kind])).input == kind


def test_every_shipped_network_fits_its_card_and_the_default_is_first() -> None:
    assert shipped()[0] == DEFAULT
    for name in shipped():
        path = default_weights().with_name(f"{name}.onnx")
        card, runner = load_card(path), load(path)
        assert (card.name, card.classes, card.input_shape) == (name, runner.classes, runner.input_shape)


def test_an_architecture_has_its_shipped_weights_or_says_how_to_make_them() -> None:
    assert weights_for("ahmsa") == default_weights()
    for network in ARCHITECTURES:
        try:
            assert load_card(weights_for(network)).network == network
        except WeightsError as error:
            recipe = default_weights().parents[2] / "configs" / "train" / f"{network}.toml"
            assert f"apexstream train --config configs/train/{network}.toml" in str(error) and recipe.is_file()
            assert f"apexstream export runs/{network} --out {network}.onnx" in str(error)
            assert "the recipes in configs/train come with the source code, not with the installed package" in str(error)


def test_weights_of_no_architecture_are_refused() -> None:
    with pytest.raises(ConfigError, match="'resnet'; there are ahmsa, htnet, hfa"):
        weights_for("resnet")


def test_a_network_without_card_is_refused(tmp_path: Path) -> None:
    path = copied(tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"net\.json"):
        load_card(path)


def moved(places: list[tuple[int, float, float, float]]) -> F32:
    """Flow [2, 128, 128] of a face of which soft patches move: (keypoint, patch's height above it, u outwards, v), pixels."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    flow = np.random.default_rng(0).normal(0, 0.02, (2, 128, 128)).astype(np.float32)
    for keypoint, above, outwards, down in places:
        cx, cy = keypoints_to_crop(CANONICAL_KEYPOINTS[keypoint])
        patch = np.exp(-(((x - cx) / 16) ** 2) - ((y - cy + above) / 11) ** 2)
        flow += np.stack([patch * outwards * (1 if cx > 64 else -1), patch * down])
    return flow


@pytest.mark.parametrize(
    ("places", "label"),
    [
        ([(0, 20, 0.0, -1.5), (1, 20, 0.0, -1.5)], "surprise"),
        ([(0, 16, -0.5, 1.5), (1, 16, -0.5, 1.5)], "negative"),
        ([(3, 0, 1.0, -1.5), (4, 0, 1.0, -1.5), (3, 20, 0.6, -1.2), (4, 20, 0.6, -1.2)], "positive"),
        ([(3, 0, 0.4, 1.5), (4, 0, 0.4, 1.5)], "negative"),
    ],
    ids=["brows up", "brows down and together", "lip corners up and out, cheeks up", "lip corners down"],
)
def test_plain_movements_are_called_what_they_are(places: list[tuple[int, float, float, float]], label: str) -> None:
    chances = load(default_weights())(network_input(load_card().input, whole_map(moved(places)))[None])[0]
    assert load_card().classes[int(chances.argmax())] == label


@pytest.mark.data
def test_both_runtimes_agree_on_real_maps_and_know_what_they_were_fitted_to(data_dir: Path) -> None:
    data = load_maps(data_dir / "htnet-3db")
    ort, eager = (load(default_weights(), backend=name)(data.inputs(load_card().input)) for name in ("ort", "eager"))
    assert np.abs(ort - eager).max() <= 5e-6  # measured 1.6e-6
    assert (ort.argmax(1) == data.labels).mean() > 0.85
