"""A recipe: everything that decides what a training run gives, read from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.config import ArchitectureName, InputKind
from engine.errors import ConfigError
from engine.geometry import INPUTS, MAP_SIDE
from engine.models import ARCHITECTURES


class Strict(BaseModel):
    """Settings that do not change and refuse names they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Strict):
    """Which network, and how many of it are averaged."""

    name: ArchitectureName
    members: int = Field(1, ge=1)
    input: InputKind = "five-regions"
    """What the network is fed with, one of `engine.geometry.INPUTS`."""
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _classes_are_given(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "num_classes" in options:
            raise ValueError("num_classes is no option: the classes are those of the maps")
        return options

    @model_validator(mode="after")
    def _input_fits(self) -> Self:
        side, (_, height, width) = self.options.get("side", ARCHITECTURES[self.name].side), INPUTS[self.input]
        if (height, width) != (side, side):
            taken = f"{self.name} takes maps of {side} x {side}, and {self.input} is {height} x {width}"
            raise ValueError(f"{taken}; choose another input")
        return self


class DescentSettings(Strict):
    """Gradient descent for a number of epochs fixed beforehand."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """One cycle: the rate rises over the first fifth of the steps and falls to nothing at the last; Adam's first beta, its
    momentum, goes the other way, from 0.95 to 0.85 and back."""
    clip: float = Field(1.0, ge=0)
    """Greatest norm of a step's gradient; 0 clips none."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class FitSettings(DescentSettings):
    """How the network is fitted. The last epoch is the result; nothing is chosen by looking at held-out data."""

    class_weight_power: float = Field(0.5, ge=0, le=1)
    """A class counts as its frequency to minus this power: 0 not at all, 0.5 root-inverse, 1 inverse."""
    mixup: float = Field(0.0, ge=0)
    """Parameter of the beta distribution that mixes pairs of maps; 0 mixes none."""
    average_last: float = Field(0.0, ge=0, lt=1)
    """Share of the last epochs over whose steps the parameters are averaged; 0 takes the last step's."""
    blend: float = Field(1.0, gt=0, le=1)
    """How far a pre-trained network goes from its start to what was fitted: each parameter is start + blend * (fitted - start).
    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022."""
    simulated: int = Field(0, ge=0)
    """Simulated maps (`training.simulate`) beside each batch of real ones; their mean loss counts as much as the real ones'."""


class KernelSettings(Strict):
    """A kernel machine beside the networks (`engine.models.kernel`)."""

    share: float = Field(0.5, ge=0, le=1)
    """Of the committee's logits."""
    centres: int = Field(600, ge=1)
    """Simulated maps that it compares a map with."""
    penalty: float = Field(0.1, gt=0)
    """How much a large norm of the solution costs."""
    spread: float = Field(1.0, gt=0)
    """The kernel's rate, times the total variance of what it compares."""


class PretrainSettings(DescentSettings):
    """Fitting networks to simulated maps (`training.simulate`) before any real one."""

    maps: int = Field(ge=100)
    members: int | None = Field(None, ge=0)
    """How many of the networks start so, the first ones; all if not given."""
    after: FitSettings | None = None
    """How these are then fitted to real maps, if not as the others are."""
    units: float = Field(2.0, ge=0)
    """What naming the simulated action units counts beside naming the class."""


class AugmentSettings(Strict):
    """How maps are varied while fitting. Lengths in map cells (1/28 of the face crop), standard deviations unless said."""

    flip: bool = True
    shift: float = Field(0.0, ge=0)
    """Greatest common shift of all regions, each way."""
    jitter: float = Field(0.0, ge=0)
    """Of each keypoint on its own."""
    zoom: float = Field(0.0, ge=0, lt=0.5)
    """Greatest relative change of scale."""
    turn: float = Field(0.0, ge=0, le=45)
    """Greatest rotation, degrees."""
    gain: float = Field(0.0, ge=0, lt=1)
    """Greatest relative change of a channel's contrast around its median."""
    noise: float = Field(0.0, ge=0)
    """White noise on the map, of its range."""
    smooth_noise: float = Field(0.0, ge=0)
    """Noise of some four cells' extent, of the map's range: what is left of head motion."""
    blur: float = Field(0.0, ge=0, le=1)
    """Greatest share of the map that is replaced by its 3 x 3 binomial blur."""


class Recipe(Strict):
    """A whole training run, but for data and folder."""

    name: str
    seed: int = Field(0, ge=0, le=10**12)
    model: ModelSettings
    fit: FitSettings
    augment: AugmentSettings = AugmentSettings()
    pretrain: PretrainSettings | None = None
    kernel: KernelSettings | None = None

    @model_validator(mode="after")
    def _only_a_start_is_blended(self) -> Self:
        for member in range(self.model.members):
            if fit_of(self, member).blend < 1 and member >= pretrained_members(self):
                raise ValueError(
                    "blend goes from a pre-trained start to what was fitted, and not all networks have such a start"
                )
        return self

    @model_validator(mode="after")
    def _kernel_sees_maps(self) -> Self:
        shape = INPUTS[self.model.input]
        if self.kernel is not None and shape != (3, MAP_SIDE, MAP_SIDE):
            raise ValueError(
                f"a kernel machine looks at inputs of 3 x {MAP_SIDE} x {MAP_SIDE}, and {self.model.input} is {shape}"
            )
        return self


def pretrained_members(recipe: Recipe) -> int:
    """How many of the recipe's networks are pre-trained, the first ones."""
    if recipe.pretrain is None:
        return 0
    wanted = recipe.pretrain.members
    return recipe.model.members if wanted is None else min(wanted, recipe.model.members)


def fit_of(recipe: Recipe, member: int) -> FitSettings:
    """How a network of the recipe is fitted to real maps."""
    special = recipe.pretrain.after if recipe.pretrain and member < pretrained_members(recipe) else None
    return special or recipe.fit


def epochs(recipe: Recipe) -> int:
    """Of pre-training and fitting, over all networks."""
    before = recipe.pretrain.epochs * pretrained_members(recipe) if recipe.pretrain else 0
    return before + sum(fit_of(recipe, member).epochs for member in range(recipe.model.members))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from TOML; ConfigError says what is wrong where."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as cause:
        raise ConfigError(f"the recipe {path} cannot be read: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise ConfigError(f"the recipe {path} is not valid TOML: {cause}") from cause
    except ValidationError as wrong:
        first = wrong.errors()[0]
        raise ConfigError(f"the recipe {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from wrong
