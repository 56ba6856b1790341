from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.errors import ConfigError
from training.recipe import Recipe, epochs, fit_of, pretrained_members, read_recipe

GOOD = 'name = "x"\n[model]\nname = "ahmsa"\n[fit]\nepochs = 3\nbatch = 8\nlearning_rate = 1e-3\n'


PRETRAIN = "[pretrain]\nmaps = 200\nepochs = 4\nbatch = 8\nlearning_rate = 1e-3\n"
AFTER = "[pretrain.after]\nepochs = 1\nbatch = 8\nlearning_rate = 1e-4\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_cannot_be_changed(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD))
    assert (recipe.name, recipe.fit.epochs, recipe.model.members, recipe.augment.flip) == ("x", 3, 1, True)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_every_shipped_recipe_can_be_read() -> None:
    paths = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.toml"))
    assert paths and all(read_recipe(path).name == path.stem for path in paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "epoch = 4\n", r"fit\.epoch: Extra inputs"),
        (GOOD.replace("epochs = 3", "epochs = 0"), r"fit\.epochs"),
        (GOOD.replace("batch = 8\n", ""), r"fit\.batch: Field required"),
        ("name = ", "not valid TOML"),
        (GOOD + "[augment]\nturn = 90\n", r"augment\.turn"),
        (GOOD.replace("[fit]", 'input = "nose"\n[fit]'), r"model\.input: .*no input is called 'nose'; there are five-regions"),
        (GOOD + 'schedule = "cosine"\n', r"fit\.schedule: Input should be 'one-cycle' or 'constant'"),
        (GOOD + 'optimizer = "sgd"\n', r"fit\.optimizer"),
        (GOOD + "clip = -1\n", r"fit\.clip"),
        ("seed = -1\n" + GOOD, r"seed: Input should be greater than or equal to 0"),
        (GOOD.replace("ahmsa", "resnet"), r"model\.name: .*no architecture is called 'resnet'; there are ahmsa, htnet, hfa"),
        (
            GOOD.replace("[fit]", 'input = "whole-224"\n[fit]'),
            r"model: .*ahmsa takes maps of 28 x 28, and whole-224 is 224 x 224",
        ),
        (GOOD.replace("ahmsa", "hfa"), r"model: .*hfa takes maps of 224 x 224, and five-regions is 28 x 28"),
        (GOOD.replace("[fit]", 'input = "aligned-and-regions"\n[fit]'), r"aligned-and-regions is 56 x 28"),
        (GOOD.replace("[fit]", "options = { side = 56, patch = 14 }\n[fit]"), r"ahmsa takes maps of 56 x 56"),
        (GOOD + PRETRAIN.replace("200", "20"), r"pretrain\.maps"),
        (GOOD + PRETRAIN + "mixup = 1\n", r"pretrain\.mixup: Extra inputs"),
        (GOOD + "[kernel]\nshare = 1.5\n", r"kernel\.share"),
        (
            GOOD.replace('"ahmsa"', '"hfa"\ninput = "whole-224"') + "[kernel]\n",
            "a kernel machine looks at inputs of 3 x 28 x 28",
        ),
    ],
)
def test_an_invalid_recipe_is_an_error_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(written(tmp_path, text))


def test_a_network_may_be_built_for_a_larger_input(tmp_path: Path) -> None:
    options = 'input = "whole-224"\noptions = { side = 224, patch = 56 }\n[fit]'
    assert read_recipe(written(tmp_path, GOOD.replace("[fit]", options))).model.input == "whole-224"


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        read_recipe(tmp_path / "gone.toml")


def test_defaults_of_a_recipe_are_the_plain_choice(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD + PRETRAIN + "[kernel]\n"))
    assert recipe.model.input == "five-regions" and recipe.fit.optimizer == "adamw" and recipe.fit.schedule == "one-cycle"
    assert recipe.kernel is not None and recipe.kernel.share == 0.5
    assert recipe.pretrain is not None and recipe.pretrain.members is None and recipe.pretrain.after is None
    plain = read_recipe(written(tmp_path, GOOD))
    assert plain.pretrain is None and plain.kernel is None


@pytest.mark.parametrize(
    ("members", "pretrained", "expected"),
    [(3, "", 3), (3, "members = 2\n", 2), (3, "members = 0\n", 0), (1, "members = 2\n", 1)],
)
def test_the_first_networks_are_pre_trained(tmp_path: Path, members: int, pretrained: str, expected: int) -> None:
    text = GOOD.replace("[fit]", f"members = {members}\n[fit]") + PRETRAIN + pretrained + AFTER
    recipe = read_recipe(written(tmp_path, text))
    assert pretrained_members(recipe) == expected
    assert [fit_of(recipe, member).epochs for member in range(members)] == [1] * expected + [3] * (members - expected)
    assert epochs(recipe) == expected * (4 + 1) + (members - expected) * 3


def test_without_settings_of_their_own_all_are_fitted_alike(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD + PRETRAIN))
    assert fit_of(recipe, 0) == recipe.fit and epochs(recipe) == 4 + 3
    plain = read_recipe(written(tmp_path, GOOD))
    assert pretrained_members(plain) == 0 and fit_of(plain, 0) == plain.fit and epochs(plain) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 10**20}, "seed"), ({"model": {"name": "ahmsa", "options": {"num_classes": 5}}}, "num_classes is no option")],
)
def test_settings_that_would_fail_during_fitting_are_refused(change: dict[str, Any], message: str) -> None:
    given = {"name": "x", "model": {"name": "ahmsa"}, "fit": {"epochs": 1, "batch": 2, "learning_rate": 0.1}, **change}
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(given)


def test_an_endlessly_nested_recipe_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"deep\.toml is not valid TOML"):
        read_recipe(path)
