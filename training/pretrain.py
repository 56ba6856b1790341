"""Fitting a network to simulated maps before any real one: it learns the action units and their classes.

Besides the class it predicts the action units that are shown, by a second head that is discarded afterwards. No recorded face
is involved, so one start serves all folds of an evaluation.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError, OutputError
from engine.geometry import INPUTS
from engine.models import build
from training.augment import Draws, inputs
from training.datasets import CLASSES
from training.descent import descend
from training.device import CPU, seeded, short_products
from training.recipe import PretrainSettings, Recipe, pretrained_members
from training.simulate import Simulated, simulate

VERSION = 2
"""Increased when the simulation or the pre-training changes: older starts are then made again."""

State = dict[str, Tensor]
"""A network's parameters by name."""

Finished = Callable[[int, float], None]
"""Called with the epochs done and the mean loss of the last one."""


def start_parameters(
    recipe: Recipe, seed: int, member: int, finished: Finished = lambda epoch, loss: None, device: torch.device = CPU
) -> State:
    """The parameters, on the CPU, that member starts from under seed: after the recipe's pre-training on the device, or freshly
    drawn.

    Every member and seed has simulated maps and random numbers of its own. Raises ConfigError for a network that has no
    `features` to name action units by.
    """
    number = seed * 1000 + member
    with seeded(number, device), short_products(device):
        network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
        if recipe.pretrain is not None and member < pretrained_members(recipe):
            _check_names_units(network, recipe)
            simulated = simulate(recipe.pretrain.maps, number)
            draw = torch.Generator(device).manual_seed(number)
            _Pretraining(network.to(device), recipe, recipe.pretrain, simulated, draw).run(finished)
    return {name: value.detach().to(CPU, copy=True) for name, value in network.state_dict().items()}


def check_network(recipe: Recipe) -> None:
    """Raise ConfigError where the recipe's network cannot be built or pre-trained; needs no memory for it."""
    with torch.device("meta"):
        network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
    if pretrained_members(recipe):
        _check_names_units(network, recipe)


def _check_names_units(network: nn.Module, recipe: Recipe) -> None:
    if not hasattr(network, "features"):
        raise ConfigError(f"{recipe.model.name} cannot be pre-trained; remove [pretrain] from the recipe {recipe.name}")


def saved_start(
    folder: Path,
    recipe: Recipe,
    seed: int,
    member: int,
    finished: Finished = lambda epoch, loss: None,
    *,
    device: torch.device = CPU,
) -> Path:
    """The file in folder with the pre-trained start, which is made on the device and written if it does not exist.

    Its name contains a hash of all settings that decide its content. Raises OutputError where it cannot be written.
    """
    assert recipe.pretrain is not None
    later = {"members", "after"}
    settings = recipe.model.model_dump(exclude=later), recipe.augment.model_dump(), recipe.pretrain.model_dump(exclude=later)
    digest = hashlib.sha256(json.dumps((VERSION, *settings), sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"start-{digest}-seed{seed}-{member}.pt"
    if path.exists():
        return path
    state, draft = start_parameters(recipe, seed, member, finished, device), path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, draft)
        draft.replace(path)
    except (OSError, RuntimeError) as cause:
        raise OutputError(f"{path} cannot be written: {cause}") from cause
    return path


class _Pretraining:
    """One network's pre-training."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, settings: PretrainSettings, data: Simulated, draw: torch.Generator
    ) -> None:
        self._network, self._recipe, self._settings, self._draw = network, recipe, settings, draw
        arrays = (data.maps, data.keypoints, data.labels, data.units)
        self._maps, self._keypoints, self._labels, self._shown = (torch.from_numpy(a).to(draw.device) for a in arrays)
        self._features: Callable[[Tensor], Tensor] = network.features  # type: ignore[assignment]
        self._head: Callable[[Tensor], Tensor] = network.head  # type: ignore[assignment]
        with torch.inference_mode():
            width = self._features(torch.zeros(2, *INPUTS[recipe.model.input], device=draw.device)).shape[1]
        self._units = nn.Linear(width, data.units.shape[1]).to(draw.device)

    def run(self, finished: Finished) -> None:
        self._network.train()
        steps = math.ceil(len(self._labels) / self._settings.batch)
        parameters = [*self._network.parameters(), *self._units.parameters()]
        descend(parameters, self._settings, steps, self._losses, finished=finished)
        self._network.eval()

    def _losses(self) -> Iterator[Tensor]:
        draws = Draws(self._draw, self._draw.device)
        order = torch.randperm(len(self._labels), generator=self._draw, device=self._draw.device)
        for chosen in torch.split(order, self._settings.batch):
            seen = inputs(self._recipe.model.input, self._maps[chosen], self._keypoints[chosen], self._recipe.augment, draws)
            yield self._loss(self._features(seen), chosen)

    def _loss(self, features: Tensor, chosen: Tensor) -> Tensor:
        classes = functional.cross_entropy(
            self._head(features), self._labels[chosen], label_smoothing=self._settings.label_smoothing
        )
        shown = functional.binary_cross_entropy_with_logits(self._units(features), self._shown[chosen])
        return classes + self._settings.units * shown
