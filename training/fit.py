"""Fitting the networks of a recipe to labelled flow maps, for a number of epochs fixed beforehand."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from engine.errors import WeightsError
from engine.models import build
from engine.models.committee import Committee
from training.augment import Draws, inputs
from training.datasets import CLASSES, FlowMaps
from training.descent import cross_entropy, descend, weighted_targets
from training.device import CPU
from training.kernel import fit_kernel
from training.pretrain import State, start_parameters
from training.recipe import AugmentSettings, Recipe, fit_of
from training.simulate import simulate

Progress = Callable[[str, int, int, float], None]
"""Called after each epoch: "pre-training" or "fitting", member, epochs done, mean loss of the epoch."""

SIMULATED = 10_000
"""Simulated maps from which those added to the real ones are drawn."""

_SIMULATED_SEED = 998
"""Differs from the seeds of the members' pre-training and of a kernel machine's centres."""

_CHUNK = 500
"""Maps augmented at a time, so that the intermediate steps need little memory."""

Watch = Callable[[int, int, nn.Module], None]
"""Called after each epoch of fitting: member, epochs done, and the network in evaluation mode as it would be if this epoch were
the last."""


def fit(
    recipe: Recipe,
    data: FlowMaps,
    *,
    seed: int | None = None,
    starts: Sequence[Path] = (),
    progress: Progress = lambda stage, member, epoch, loss: None,
    watch: Watch | None = None,
) -> Committee:
    """Fit all members of the recipe to all maps of data; the committee is returned in evaluation mode.

    seed replaces the recipe's own; starts are the members' pre-trained parameters (`pretrain.saved_start`), else made here.
    The same seed and data give the same parameters on the same machine. Raises WeightsError for a start that cannot be read.
    """
    start, members = recipe.seed if seed is None else seed, []
    for number in range(recipe.model.members):
        state = member_start(recipe, start, number, starts, progress)
        members.append(_Member(recipe, number, data, start, state).run(progress, watch))
    return committee(recipe, members, data, start)


def committee(recipe: Recipe, members: Sequence[nn.Module], data: FlowMaps, seed: int) -> Committee:
    """Networks fitted to data and the recipe's kernel machine, fitted here, in evaluation mode."""
    return Committee(members, 1.0, fit_kernel(recipe, data, seed), recipe.kernel.share if recipe.kernel else 0.0).eval()


def member_start(
    recipe: Recipe, seed: int, member: int, starts: Sequence[Path], progress: Progress, *, device: torch.device = CPU
) -> State:
    """The parameters that a member starts from: read from its file in starts, where there is one, else made on the device."""
    if member < len(starts):
        return _read_start(starts[member])
    return start_parameters(recipe, seed, member, partial(progress, "pre-training", member), device)


@lru_cache(maxsize=1)
def simulated_inputs(kind: str, augment: AugmentSettings, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [SIMULATED, 3, H, W] of simulated maps, varied as real ones are, and their labels: made once for all networks and
    folds of a seed, since few of them are drawn twice in one fitting."""
    seed = seed * 1000 + _SIMULATED_SEED
    made = simulate(SIMULATED, seed)
    draw = Draws(torch.Generator().manual_seed(seed))
    parts = zip(*(torch.split(torch.from_numpy(part), _CHUNK) for part in (made.maps, made.keypoints)), strict=True)
    return torch.cat([inputs(kind, maps, keypoints, augment, draw) for maps, keypoints in parts]), torch.from_numpy(made.labels)


def _read_start(start: Path) -> State:
    try:
        state: State = torch.load(start, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as cause:
        raise WeightsError(f"the pre-trained start {start} cannot be read; delete it, and it is made again") from cause
    return state


def _blend(network: nn.Module, start: State, share: float) -> None:
    """Move every parameter and running statistic of the network back towards the start, so that share of the way remains."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(start[name], 1 - share)


class _Member:
    """One network's fitting: batches of varied maps, each as the loss of the network on it."""

    def __init__(self, recipe: Recipe, number: int, data: FlowMaps, seed: int, start: State) -> None:
        self._recipe, self._settings, self._number, self._seed = recipe, fit_of(recipe, number), number, seed * 1000 + number
        self._draw = torch.Generator().manual_seed(self._seed)
        self._mix = np.random.default_rng(self._seed)
        self._maps, self._keypoints = torch.from_numpy(data.maps), torch.from_numpy(data.keypoints)
        with torch.random.fork_rng(devices=[]):  # building draws parameters, which start then replaces
            self._network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
        self._network.load_state_dict(start)
        self._start = start
        if self._settings.simulated:
            self._added = simulated_inputs(recipe.model.input, recipe.augment, seed)
        self._targets = weighted_targets(data.labels, self._settings)

    def run(self, progress: Progress, watch: Watch | None) -> nn.Module:
        """The network after the last epoch, or the mean over the last epochs' steps, blended with its start; in evaluation
        mode."""
        settings = self._settings
        averaged = AveragedModel(self._network) if settings.average_last else None
        first_averaged = settings.epochs * (1 - settings.average_last)

        def stepped(epoch: int) -> None:
            if averaged is not None and epoch >= first_averaged:
                averaged.update_parameters(self._network)

        def finished(epochs: int, loss: float) -> None:
            progress("fitting", self._number, epochs, loss)
            if watch:
                watch(self._number, epochs, self._so_far(averaged).eval())
                self._network.train()

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self._network.train()
            steps = math.ceil(len(self._maps) / settings.batch)
            parameters = list(self._network.parameters())
            descend(parameters, settings, steps, self._losses, stepped=stepped, finished=finished)
        return self._so_far(averaged).eval()

    def _so_far(self, averaged: AveragedModel | None) -> nn.Module:
        """The network as it would be if this were the last step: the mean over the steps to be averaged, if any yet, blended
        with its start. It may be the one that is being fitted."""
        chosen = self._network if averaged is None or not averaged.n_averaged else averaged.module
        if self._settings.blend < 1:
            chosen = deepcopy(chosen)
            _blend(chosen, self._start, self._settings.blend)
        return chosen

    def _losses(self) -> Iterator[Tensor]:
        """One loss per batch, the maps in a newly drawn order; the parameters may change in between."""
        order = torch.randperm(len(self._maps), generator=self._draw)
        kind, augment, mixup = self._recipe.model.input, self._recipe.augment, self._settings.mixup
        for chosen in torch.split(order, self._settings.batch):
            seen = inputs(kind, self._maps[chosen], self._keypoints[chosen], augment, Draws(self._draw))
            targets = self._targets[chosen]
            if mixup:
                share = float(self._mix.beta(mixup, mixup))
                other = torch.randperm(len(chosen), generator=self._draw)
                seen = share * seen + (1 - share) * seen[other]
                targets = share * targets + (1 - share) * targets[other]
            yield self._loss(seen, targets)

    def _loss(self, seen: Tensor, targets: Tensor) -> Tensor:
        """Of inputs [B, 3, H, W] and weighted targets [B, K], and of simulated maps where the recipe adds them."""
        if not self._settings.simulated:
            return cross_entropy(self._network(seen), targets).mean()
        maps, labels = self._added
        drawn = torch.randint(len(labels), (self._settings.simulated,), generator=self._draw)
        logits = self._network(torch.cat((seen, maps[drawn])))
        real = cross_entropy(logits[: len(seen)], targets).mean()
        smooth = self._settings.label_smoothing
        return real + functional.cross_entropy(logits[len(seen) :], labels[drawn], label_smoothing=smooth)
