from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.errors import ConfigError
from training.recipe import read_recipe

GOOD = 'name = "x"\n[model]\nname = "ahmsa"\n[fit]\nepochs = 3\nbatch = 8\nlearning_rate = 1e-3\n'


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
    ("text", "says"),
    [
        (GOOD + "epoch = 4\n", r"fit\.epoch: Extra inputs"),
        (GOOD.replace("epochs = 3", "epochs = 0"), r"fit\.epochs"),
        (GOOD.replace("batch = 8\n", ""), r"fit\.batch: Field required"),
        ("name = ", "not valid TOML"),
        (GOOD + "[augment]\nturn = 90\n", r"augment\.turn"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_recipe(written(tmp_path, text))


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        read_recipe(tmp_path / "gone.toml")
