"""Gradient descent over batches, shared by fitting and pre-training; targets, loss and schedule of every way of fitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from engine.errors import ConfigError
from training.datasets import CLASSES
from training.recipe import DescentSettings, FitSettings

Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
"""[N] of classes, as indices of CLASSES."""

RISE = 0.2
"""Share of the steps over which one cycle's learning rate rises."""


def descend(
    parameters: Sequence[nn.Parameter],
    settings: DescentSettings,
    steps: int,
    losses: Callable[[], Iterable[Tensor]],
    *,
    stepped: Callable[[int], None] = lambda epoch: None,
    finished: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Change the parameters for the settings' epochs; losses() yields an epoch's `steps` losses, each computed on demand.

    stepped is called after every step with the epochs done, finished after every epoch with the epochs done and the mean loss.
    Raises ConfigError where loss or parameters are no longer finite.
    """
    optimizer = _adam(parameters, settings)
    schedule = _one_cycle(optimizer, settings, steps) if settings.schedule == "one-cycle" else None
    for epoch in range(settings.epochs):
        total = 0.0
        for loss in losses():
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if settings.clip:
                nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            total += float(loss.detach())
            stepped(epoch)
        finished(epoch + 1, total / steps)
        if not math.isfinite(total) or not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            raise diverged(epoch + 1, settings)


def diverged(epoch: int, settings: DescentSettings) -> ConfigError:
    """The error of a fit whose loss or parameters are no longer finite after so many epochs."""
    advice = f"lower learning_rate (it is {settings.learning_rate:g})" + ("" if settings.clip else " or set clip")
    return ConfigError(f"in epoch {epoch} loss or parameters are no longer finite; {advice}")


def schedule(settings: DescentSettings, steps: int) -> list[tuple[float, float]]:
    """(learning rate, Adam's first beta) of each step, where an epoch has so many."""
    optimizer = _adam([nn.Parameter(torch.zeros(1))], settings)
    cycle = _one_cycle(optimizer, settings, steps) if settings.schedule == "one-cycle" else None
    group, found = optimizer.param_groups[0], []
    for step in range(settings.epochs * steps):
        found.append((float(group["lr"]), float(group["betas"][0])))
        if cycle is not None and step + 1 < settings.epochs * steps:
            optimizer.step()
            cycle.step()
    return found


def weighted_targets(labels: Labels, settings: FitSettings) -> Tensor:
    """[N, K] what the network shall answer for maps of these labels, smoothed, each row times the weight of its class."""
    smooth, truth = settings.label_smoothing, torch.from_numpy(labels)
    targets = functional.one_hot(truth, len(CLASSES)).float() * (1 - smooth) + smooth / len(CLASSES)
    return targets * class_weights(labels, settings.class_weight_power)[truth][:, None]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """[...] of logits and weighted targets [..., K]."""
    return -(targets * torch.log_softmax(logits, -1)).sum(-1)


def class_weights(labels: Labels, power: float) -> Tensor:
    """[K] weights of the classes, frequency to minus power, of mean 1 over the maps; a class that does not occur gets 0."""
    counts = np.bincount(labels, minlength=len(CLASSES)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def _adam(parameters: Sequence[nn.Parameter], settings: DescentSettings) -> Optimizer:
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def _one_cycle(optimizer: Optimizer, settings: DescentSettings, steps: int) -> OneCycleLR:
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.epochs * steps, pct_start=RISE)
