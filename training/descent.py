"""Gradient descent over batches, as fitting and pre-training share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from engine.errors import ConfigError
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
    """Change the parameters for the settings' epochs; losses() gives an epoch's `steps` losses, each worked out when asked for.

    stepped is called after every step with the epochs done, finished after every epoch with the epochs done and the mean loss.
    Raises ConfigError where loss or parameters leave the finite numbers: nothing that follows would mean anything.
    """
    told = f"lower learning_rate (it is {settings.learning_rate:g})" + ("" if settings.clip else " or set clip")
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
            raise ConfigError(f"in epoch {epoch + 1} the fitting left the finite numbers; {told}")


def _one_cycle(optimizer: Optimizer, settings: DescentSettings, steps: int) -> OneCycleLR:
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.epochs * steps, pct_start=RISE)
