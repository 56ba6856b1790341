"""Adam and AdamW on stacked parameters, each row a network of its own. Every step is the same operations on the same tensors:
rates come from a table on the device, so a step can be captured as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from training.descent import schedule
from training.recipe import DescentSettings

SECOND_BETA, EPSILON = 0.999, 1e-8


class StackedAdam:
    """Changes parameters [S, P] as `torch.optim.Adam` or `AdamW` would change each row alone, with the settings' schedule and
    each row's gradient clipped on its own."""

    def __init__(self, parameters: Tensor, settings: DescentSettings, steps: int) -> None:
        """steps are those of an epoch."""
        self._parameters, self._settings = parameters, settings
        decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
        rows = [
            (1 - beta, rate / (1 - beta**done), (1 - SECOND_BETA**done) ** -0.5, 1 - rate * decay)
            for done, (rate, beta) in enumerate(schedule(settings, steps), start=1)
        ]
        self._table = torch.tensor(rows, dtype=torch.float32).to(parameters.device)
        self._done = torch.zeros(1, dtype=torch.int64, device=parameters.device)
        self._mean, self._square = torch.zeros_like(parameters), torch.zeros_like(parameters)

    def reset(self) -> None:
        """Forget all steps."""
        for value in (self._done, self._mean, self._square):
            value.zero_()

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Change the parameters by a gradient [S, P]; after the schedule's last step its rates remain."""
        settings, parameters = self._settings, self._parameters
        row = self._table.index_select(0, self._done.clamp(max=len(self._table) - 1))[0]
        new_share, rate, spread, kept = row.unbind()
        self._done += 1
        if settings.clip:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient = gradient * (settings.clip / (norm + 1e-6)).clamp(max=1)
        if settings.weight_decay and settings.optimizer == "adam":
            gradient = gradient.add(parameters, alpha=settings.weight_decay)
        elif settings.weight_decay:
            parameters.mul_(kept)
        self._mean.lerp_(gradient, new_share)
        self._square.mul_(SECOND_BETA).addcmul_(gradient, gradient, value=1 - SECOND_BETA)
        parameters.sub_(self._mean / self._square.sqrt().mul_(spread).add_(EPSILON) * rate)
