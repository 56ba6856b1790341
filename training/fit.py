"""Fitting the networks of a recipe to labelled flow maps, for a number of epochs fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models import build
from engine.models.committee import Committee
from training.augment import composites
from training.datasets import CLASSES, FlowMaps
from training.recipe import Recipe

Progress = Callable[[int, int, float], None]
"""Told after each epoch: member, epochs done, mean loss of the epoch."""


def fit(recipe: Recipe, data: FlowMaps, *, seed: int | None = None, progress: Progress | None = None) -> Committee:
    """Fit all members of the recipe to all maps of data; the committee is returned in evaluation mode.

    seed replaces the recipe's own. The same seed and data give the same parameters on the same machine.
    """
    start = recipe.seed if seed is None else seed
    members = [_member(recipe, data, start * 1000 + number, number, progress) for number in range(recipe.model.members)]
    return Committee(members).eval()


def class_weights(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], power: float) -> Tensor:
    """[K] weights of the classes, frequency to minus power, of mean 1 over the maps; a class that does not occur gets 0."""
    counts = np.bincount(labels, minlength=len(CLASSES)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def _member(recipe: Recipe, data: FlowMaps, seed: int, number: int, progress: Progress | None) -> nn.Module:
    settings = recipe.fit
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(recipe.model.name, len(CLASSES), **recipe.model.options)
        steps = math.ceil(len(data) / settings.batch)
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=settings.epochs * steps, pct_start=0.2
        )
        averaged = torch.optim.swa_utils.AveragedModel(network)
        first_averaged = settings.epochs * (1 - settings.average_last)
        batches = _Batches(recipe, data, draw)
        for epoch in range(settings.epochs):
            losses = []
            for loss in batches.losses(network):
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
                if epoch >= first_averaged:
                    averaged.update_parameters(network)
            if progress:
                progress(number, epoch + 1, float(np.mean(losses)))
    return averaged.module.eval() if settings.average_last else network.eval()


class _Batches:
    """An epoch's batches of varied composites, each as the loss of a network on it."""

    def __init__(self, recipe: Recipe, data: FlowMaps, draw: torch.Generator) -> None:
        self._recipe, self._draw = recipe, draw
        self._mix = np.random.default_rng(int(torch.randint(2**31, (1,), generator=draw)))
        self._maps, self._keypoints = torch.from_numpy(data.maps), torch.from_numpy(data.keypoints)
        weights = class_weights(data.labels, recipe.fit.class_weight_power)
        smooth = recipe.fit.label_smoothing
        targets = functional.one_hot(torch.from_numpy(data.labels), len(CLASSES)).float()
        self._targets = (targets * (1 - smooth) + smooth / len(CLASSES)) * weights[torch.from_numpy(data.labels)][:, None]

    def losses(self, network: nn.Module) -> Iterator[Tensor]:
        """One loss a batch, the maps in an order drawn anew; the parameters may change between two."""
        order = torch.randperm(len(self._maps), generator=self._draw)
        for chosen in torch.split(order, self._recipe.fit.batch):
            pieces = composites(self._maps[chosen], self._keypoints[chosen], self._recipe.augment, self._draw)
            targets = self._targets[chosen]
            if self._recipe.fit.mixup:
                share = float(self._mix.beta(self._recipe.fit.mixup, self._recipe.fit.mixup))
                other = torch.randperm(len(chosen), generator=self._draw)
                pieces = share * pieces + (1 - share) * pieces[other]
                targets = share * targets + (1 - share) * targets[other]
            yield -(targets * torch.log_softmax(network(pieces), 1)).sum(1).mean()
