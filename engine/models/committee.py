"""Several networks of one architecture as one, the form in which networks are shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.errors import ConfigError


class Committee(nn.Module):
    """Maps [B, 3, H, W] of (u, v, strain) in 0..1 -> probabilities [B, K].

    The logits of all members, each on the map and on the mirrored map (columns reversed, u -> 1 - u), are averaged, divided by
    the temperature, and turned into probabilities. So the answer for a mirrored face is the same.
    """

    temperature: Tensor

    def __init__(self, members: Sequence[nn.Module], temperature: float = 1.0) -> None:
        super().__init__()
        if not members or temperature <= 0:
            raise ConfigError(f"a committee needs a member and a temperature above 0, not {len(members)} and {temperature}")
        self.members = nn.ModuleList(members)
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def logits(self, maps: Tensor) -> Tensor:
        """The averaged logits [B, K], before the temperature."""
        u = 1 - maps[:, :1].flip(3)
        both = torch.cat((maps, torch.cat((u, maps[:, 1:].flip(3)), 1)))
        total = torch.stack([member(both) for member in self.members]).mean(0)
        return total.reshape(2, -1, total.shape[1]).mean(0)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, K]."""
        return torch.softmax(self.logits(maps) / self.temperature, 1)
