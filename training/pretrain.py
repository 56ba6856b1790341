"""Fitting a network to simulated maps before any real one: it learns what action units look like, and whose class they are.

Beside the class it names the action units that are shown, by a second head that is thrown away afterwards. No recorded face
has a part in it, so one start serves all folds of an evaluation.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError, OutputError
from engine.geometry import INPUTS
from engine.models import build
from training.augment import inputs
from training.datasets import CLASSES
from training.descent import descend
from training.recipe import PretrainSettings, Recipe, pretrained_members
from training.simulate import Simulated, simulate

WAY = 2
"""Counts up when the simulation, or what is learnt of it, changes: starts made the old way are then made anew."""

State = dict[str, Tensor]
"""A network's parameters by name."""

Told = Callable[[int, float], None]
"""Called with the epochs done and the mean loss of the last one."""


def begun(recipe: Recipe, seed: int, member: int, told: Told = lambda epoch, loss: None) -> State:
    """The parameters that member starts from under seed: after the recipe's pre-training, or freshly drawn.

    Every member and seed has simulated maps and random numbers of its own. Raises ConfigError for a network that has no
    `features` to name action units by.
    """
    number = seed * 1000 + member
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
        if recipe.pretrain is not None and member < pretrained_members(recipe):
            _check_names_units(network, recipe)
            simulated = simulate(recipe.pretrain.maps, number)
            _Lesson(network, recipe, recipe.pretrain, simulated, torch.Generator().manual_seed(number)).learn(told)
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def check_network(recipe: Recipe) -> None:
    """ConfigError where the recipe's network cannot be built, or not be pre-trained as it says; costs no memory."""
    with torch.device("meta"):
        network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
    if pretrained_members(recipe):
        _check_names_units(network, recipe)


def _check_names_units(network: nn.Module, recipe: Recipe) -> None:
    if not hasattr(network, "features"):
        raise ConfigError(f"{recipe.model.name} cannot be pre-trained; take [pretrain] out of the recipe {recipe.name}")


def keep(folder: Path, recipe: Recipe, seed: int, member: int, told: Told = lambda epoch, loss: None) -> Path:
    """Pre-train and write the start to folder, unless it lies there already; the file.

    Its name holds what decides its content. Raises OutputError where it cannot be written.
    """
    assert recipe.pretrain is not None
    later = {"members", "after"}
    settings = recipe.model.model_dump(exclude=later), recipe.augment.model_dump(), recipe.pretrain.model_dump(exclude=later)
    digest = hashlib.sha256(json.dumps((WAY, *settings), sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"start-{digest}-seed{seed}-{member}.pt"
    if path.exists():
        return path
    state, draft = begun(recipe, seed, member, told), path.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, draft)
        draft.replace(path)
    except (OSError, RuntimeError) as cause:
        raise OutputError(f"{path} cannot be written: {cause}") from cause
    return path


class _Lesson:
    """One network's pre-training."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, settings: PretrainSettings, data: Simulated, draw: torch.Generator
    ) -> None:
        self._network, self._recipe, self._settings, self._draw = network, recipe, settings, draw
        self._maps, self._keypoints = torch.from_numpy(data.maps), torch.from_numpy(data.keypoints)
        self._labels, self._shown = torch.from_numpy(data.labels), torch.from_numpy(data.units)
        self._features: Callable[[Tensor], Tensor] = network.features  # type: ignore[assignment]
        self._head: Callable[[Tensor], Tensor] = network.head  # type: ignore[assignment]
        with torch.inference_mode():
            width = self._features(torch.zeros(2, *INPUTS[recipe.model.input])).shape[1]
        self._units = nn.Linear(width, data.units.shape[1])

    def learn(self, told: Told) -> None:
        self._network.train()
        steps = math.ceil(len(self._labels) / self._settings.batch)
        parameters = [*self._network.parameters(), *self._units.parameters()]
        descend(parameters, self._settings, steps, self._losses, finished=told)
        self._network.eval()

    def _losses(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self._labels), generator=self._draw)
        for chosen in torch.split(order, self._settings.batch):
            seen = inputs(
                self._recipe.model.input, self._maps[chosen], self._keypoints[chosen], self._recipe.augment, self._draw
            )
            yield self._loss(self._features(seen), chosen)

    def _loss(self, features: Tensor, chosen: Tensor) -> Tensor:
        classes = functional.cross_entropy(
            self._head(features), self._labels[chosen], label_smoothing=self._settings.label_smoothing
        )
        shown = functional.binary_cross_entropy_with_logits(self._units(features), self._shown[chosen])
        return classes + self._settings.units * shown
