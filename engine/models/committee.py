"""Several networks of one architecture as one, with or without a kernel machine: the form in which networks are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.models import build
from engine.models.kernel import KernelMachine

PASS = 16 * 224 * 224
"""Cells that go through the networks at once in `Committee.answers`: 16 maps of 224 x 224, or 1024 of 28 x 28."""


class Committee(nn.Module):
    """Maps [B, 3, H, W] of (u, v, strain) in 0..1 -> probabilities [B, K].

    The logits of all members, each on the map and on the mirrored map (columns reversed, u -> 1 - u), are averaged, divided by
    the temperature, and turned into probabilities. So the answer for a mirrored face is the same. A kernel machine has the
    share `kernel_share` of the logits, the members the rest.
    """

    temperature: Tensor

    def __init__(
        self,
        members: Sequence[nn.Module],
        temperature: float = 1.0,
        kernel: KernelMachine | None = None,
        kernel_share: float = 0.5,
    ) -> None:
        super().__init__()
        if not members or temperature <= 0:
            raise ConfigError(f"a committee needs a member and a temperature above 0, not {len(members)} and {temperature}")
        if not 0 <= kernel_share <= 1:
            raise ConfigError(f"a kernel machine's share lies in 0..1, not {kernel_share}")
        self.members = nn.ModuleList(members)
        self.kernel, self.kernel_share = kernel, kernel_share
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def each(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of every member alone [M, B, K], and of the kernel machine [B, K] where there is one."""
        both = with_mirrored(maps)

        def folded(network: nn.Module) -> Tensor:
            found: Tensor = network(both)
            return found.reshape(2, -1, found.shape[1]).mean(0)

        alone = torch.stack([folded(member) for member in self.members])
        return alone, None if self.kernel is None else folded(self.kernel)

    def answers(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """`each`, some maps after the others, so that memory does not grow with their number."""
        parts = [self.each(part) for part in passes(maps)]
        kernels = [kernel for _, kernel in parts if kernel is not None]
        return torch.cat([alone for alone, _ in parts], 1), torch.cat(kernels) if kernels else None

    def logits(self, maps: Tensor) -> Tensor:
        """The averaged logits [B, K], before the temperature."""
        return self.together(*self.each(maps))

    def together(self, alone: Tensor, kernel: Tensor | None) -> Tensor:
        """What `each` gave as one answer [B, K]."""
        mean = alone.mean(0)
        return mean if kernel is None else mean + self.kernel_share * (kernel - mean)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, K]."""
        return torch.softmax(self.logits(maps) / self.temperature, 1)


def with_mirrored(maps: Tensor) -> Tensor:
    """Maps [B, 3, H, W], then their mirror images: [2 B, 3, H, W]."""
    u = 1 - maps[:, :1].flip(3)
    return torch.cat((maps, torch.cat((u, maps[:, 1:].flip(3)), 1)))


def passes(maps: Tensor) -> tuple[Tensor, ...]:
    """Maps [B, 3, H, W] as parts of at most PASS cells, each of at least one map."""
    return torch.split(maps, max(1, PASS // (maps.shape[-2] * maps.shape[-1])))


def assemble(network: str, options: dict[str, Any], members: int, kernel: dict[str, Any] | None, classes: int) -> Committee:
    """An unfitted committee as a card or an exported file describes it; kernel holds `centres` and `share`, or is None."""
    machine = None if kernel is None else KernelMachine(classes, int(kernel["centres"]))
    networks = [build(network, classes, **options) for _ in range(members)]
    return Committee(networks, 1.0, machine, 0.0 if kernel is None else kernel["share"])


def kernel_of(committee: Committee) -> dict[str, Any] | None:
    """The `kernel` that `assemble` takes, of a committee."""
    if committee.kernel is None:
        return None
    return {"centres": len(committee.kernel.centres), "share": committee.kernel_share}
