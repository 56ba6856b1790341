"""Gradient descent over batches, shared by fitting and pre-training, and the weights of classes in the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from engine.errors import ConfigError
from training.datasets import CLASSES
from training.recipe import DescentSettings

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
    advice = f"lower learning_rate (it is {settings.learning_rate:g})" + ("" if settings.clip else " or set clip")
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
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
            raise ConfigError(f"in epoch {epoch + 1} loss or parameters are no longer finite; {advice}")


def class_weights(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], power: float) -> Tensor:
    """[K] weights of the classes, frequency to minus power, of mean 1 over the maps; a class that does not occur gets 0."""
    counts = np.bincount(labels, minlength=len(CLASSES)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def _one_cycle(optimizer: Optimizer, settings: DescentSettings, steps: int) -> OneCycleLR:
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.epochs * steps, pct_start=RISE)
