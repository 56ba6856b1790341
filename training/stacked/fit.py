"""Fitting a recipe's networks to several parts of the same maps at once, on one device: `training.fit` for folds.

The recipe means the same as in `training.fit`; what differs is the order of the arithmetic and which random numbers are drawn.
All parts share their random numbers, and a map's place in an epoch depends on the numbers of that map alone, so a fold's result
does not depend on which others are fitted beside it, but for rounding.

Every step has the same shapes: where a part has fewer maps than the last batch has rows, maps of its own fill it and weigh
nothing. A network with batch norm would see them, so it is fitted to one part alone, in batches of the true length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from engine.geometry import INPUTS
from engine.models import build
from engine.models.committee import Committee, with_mirrored
from training.augment import Draws, inputs
from training.datasets import CLASSES, FlowMaps
from training.descent import cross_entropy, diverged, weighted_targets
from training.device import CPU, seeded, short_products
from training.fit import Progress, committee, member_start, simulated_inputs
from training.pretrain import State
from training.recipe import Recipe, fit_of
from training.stacked.adam import StackedAdam
from training.stacked.graph import Work, captured

Watch = Callable[[int, Sequence[Tensor]], None]
"""Called after each epoch of fitting: member, and its logits for each part's watched maps, were this epoch the last; averaged
over mirror images."""

COPIES = 8
"""Of all parameters at most: themselves, gradient, two moments, mean, the watched ones, and what a step needs for a moment."""


def fit_stacked(
    recipe: Recipe,
    data: FlowMaps,
    parts: Sequence[Sequence[int]],
    device: torch.device,
    *,
    seed: int | None = None,
    starts: Sequence[Path] = (),
    progress: Progress = lambda stage, member, epoch, loss: None,
    watched: Sequence[Tensor] = (),
    watch: Watch = lambda member, logits: None,
) -> list[Committee]:
    """A committee for each part, fitted to those maps of data alone, on the CPU and in evaluation mode.

    Arguments as of `training.fit.fit`; the loss that progress is called with is the mean over parts. watched are the inputs
    [n, 3, H, W] of each part that watch is called for. All parts need the same number of `steps`. Raises what PyTorch
    raises where the device fails or its memory is short (`device.short_of_memory`).
    """
    start = recipe.seed if seed is None else seed
    members = []
    for number in range(recipe.model.members):
        state = member_start(recipe, start, number, starts, progress, device=device)
        stack = Stack(recipe, number, data, parts, seed=start, state=state, device=device, watched=watched)
        members.append(stack.run(partial(progress, "fitting", number), partial(watch, number)))
    return [committee(recipe, own, data.take(part), start) for own, part in zip(zip(*members, strict=True), parts, strict=True)]


def steps(recipe: Recipe, maps: int) -> tuple[int, ...]:
    """Of an epoch over so many maps, for each member: parts can be fitted together where these are the same."""
    return tuple(math.ceil(maps / fit_of(recipe, member).batch) for member in range(recipe.model.members))


def stackable(recipe: Recipe) -> bool:
    """Whether several networks of the recipe can be fitted at once: none looks at a batch as a whole."""
    return not _has_batch_norm(_built(recipe, torch.device("meta")))


def bytes_each(recipe: Recipe) -> int:
    """Memory that one network's parameters and their optimizer take, without what a step needs for its maps."""
    network = _built(recipe, torch.device("meta"))
    return COPIES * 4 * sum(parameter.numel() for parameter in network.parameters())


def _built(recipe: Recipe, device: torch.device) -> nn.Module:
    with device:
        return build(recipe.model.name, len(CLASSES), **recipe.model.options)


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Stack:
    """One member's networks, one for each of S parts, as rows of one tensor [S, P].

    widths are the rows of the batches of an epoch, of each part.
    """

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        data: FlowMaps,
        parts: Sequence[Sequence[int]],
        *,
        seed: int,
        state: State,
        device: torch.device,
        watched: Sequence[Tensor] = (),
    ) -> None:
        self._recipe, self._settings, self._device = recipe, fit_of(recipe, number), device
        self._seed, self._parts = seed * 1000 + number, parts
        self._mix = np.random.default_rng(self._seed)
        with torch.random.fork_rng(devices=[]):  # building draws parameters, which start then replaces
            self._network = _built(recipe, CPU)
        self._hold_parameters(state)
        self._hold_maps(data)
        self.widths = self._batch_widths(len(data))
        self._adam = StackedAdam(self._flat, self._settings, len(self.widths))
        self._losses, self._mix_share = torch.zeros(len(parts), device=device), torch.ones((), device=device)
        distinct = sorted(set(self.widths))
        self._chosen = {width: torch.zeros(len(parts), width, dtype=torch.int64, device=device) for width in distinct}
        self._real = {width: torch.ones(len(parts), width, device=device) for width in distinct}
        if self._settings.simulated:
            self._added = tuple(part.to(device) for part in simulated_inputs(recipe.model.input, recipe.augment, seed))
        self._watched = _padded(watched).to(device) if watched else None
        self._watched_counts = [len(maps) for maps in watched]

    def _hold_parameters(self, state: State) -> None:
        named = dict(self._network.named_parameters())
        self._shapes = {name: parameter.shape for name, parameter in named.items()}
        self._start = torch.cat([state[name].flatten() for name in named]).to(self._device)
        self._start_buffers = {name: value.to(self._device) for name, value in state.items() if name not in named}
        fixed = {name: value for name, value in self._network.named_buffers() if name not in state}
        self._fixed = {name: value.to(self._device) for name, value in fixed.items()}
        rows = len(self._parts)
        self._flat = self._start.repeat(rows, 1).requires_grad_()
        self._buffers = {name: torch.stack([value] * rows) for name, value in self._start_buffers.items()}
        self._mean = torch.zeros_like(self._flat, requires_grad=False) if self._settings.average_last else None
        self._averaged = 0
        self._shown = torch.zeros_like(self._flat, requires_grad=False)
        self._shown_buffers = {name: value.clone() for name, value in self._buffers.items()}

    def _hold_maps(self, data: FlowMaps) -> None:
        self._maps, self._keypoints = (torch.from_numpy(array).to(self._device) for array in (data.maps, data.keypoints))
        fitted = torch.zeros(len(self._parts), len(data), dtype=torch.bool)
        targets = torch.zeros(len(self._parts), len(data), len(CLASSES))
        for row, part in enumerate(self._parts):
            fitted[row, list(part)] = True
            targets[row, list(part)] = weighted_targets(data.labels[list(part)], self._settings)
        self._fitted, self._targets = fitted.to(self._device), targets.to(self._device)

    def _batch_widths(self, maps: int) -> list[int]:
        """Rows of each step's batch; the last one's depend on the number of all maps, so that they are the same for every
        part, or, with batch norm, on the one part's."""
        batch, counts = self._settings.batch, {math.ceil(len(part) / self._settings.batch) for part in self._parts}
        assert len(counts) == 1, "all parts need the same number of steps"
        before = (counts.pop() - 1) * batch
        if _has_batch_norm(self._network):
            assert len(self._parts) == 1, "networks with batch norm are fitted one by one"
            maps = len(self._parts[0])
        return [batch] * (before // batch) + [min(batch, maps - before)]

    def run(self, finished: Callable[[int, float], None], watch: Callable[[Sequence[Tensor]], None]) -> list[nn.Module]:
        """The networks after the last epoch, or the mean over the last epochs' steps, blended with their start."""
        settings = self._settings
        with seeded(self._seed, self._device), short_products(self._device):
            works, look = self._prepared()
            for epoch in range(settings.epochs):
                self._epoch(works, averaging=epoch >= settings.epochs * (1 - settings.average_last))
                loss = float(self._losses.mean()) / len(self.widths)
                finished(epoch + 1, loss)
                if look is not None:
                    self._show()
                    logits = look().cpu()
                    watch([rows[:count] for rows, count in zip(logits, self._watched_counts, strict=True)])
                if not math.isfinite(loss) or not bool(torch.isfinite(self._flat).all()):
                    raise diverged(epoch + 1, settings)
            self._show()
            return [self._network_of(row) for row in range(len(self._parts))]

    def _prepared(self) -> tuple[dict[int, Work], Work | None]:
        """The step for each width of a batch, and the look at watched maps, captured on a GPU; nothing is fitted yet."""
        looks = [] if self._watched is None else [self.look]
        works = captured([*(partial(self.step, width) for width in self._chosen), *looks], self._device)
        self._adam.reset()
        with torch.no_grad():
            self._flat.copy_(self._start)
            for name, value in self._buffers.items():
                value.copy_(self._start_buffers[name])
        torch.manual_seed(self._seed)
        return dict(zip(self._chosen, works, strict=False)), works[-1] if looks else None

    def _epoch(self, works: dict[int, Work], *, averaging: bool) -> None:
        """Every part's maps once, in a newly drawn order."""
        keys = torch.rand(self._fitted.shape[1], device=self._device)
        order = torch.where(self._fitted, keys, torch.inf).argsort(1)  # a part's own maps first
        real = torch.arange(order.shape[1], device=self._device) < self._fitted.sum(1, keepdim=True)
        order = torch.where(real, order, order[:, :1])
        self._losses.zero_()
        begin = 0
        for width in self.widths:
            self._chosen[width].copy_(order[:, begin : begin + width])
            self._real[width].copy_(real[:, begin : begin + width])
            begin += width
            if self._settings.mixup:
                self._mix_share.fill_(float(self._mix.beta(self._settings.mixup, self._settings.mixup)))
            works[width]()
            if averaging and self._mean is not None:
                self._averaged += 1
                self._mean.lerp_(self._flat.detach(), 1 / self._averaged)

    def step(self, width: int) -> Tensor:
        """One step on a batch of so many maps of each part, one of `widths`; its losses [S]. Asks the host for nothing."""
        self._network.train()
        chosen, real = self._chosen[width], self._real[width]
        seen, targets = self._mixed(self._seen(chosen), self._targets.gather(1, _for_classes(chosen)), real)
        added = self._settings.simulated
        if added:
            maps, labels = self._added
            drawn = torch.randint(len(labels), (added,), device=self._device)
            seen = torch.cat((seen, maps.index_select(0, drawn).expand(len(seen), *(-1 for _ in seen.shape[1:]))), 1)
        logits = self._logits(self._flat, self._buffers, seen)
        losses = (cross_entropy(logits[:, :width], targets) * real).sum(1) / real.sum(1)
        if added:
            truth, smooth = labels.index_select(0, drawn).repeat(len(seen)), self._settings.label_smoothing
            each = functional.cross_entropy(logits[:, width:].flatten(0, 1), truth, label_smoothing=smooth, reduction="none")
            losses = losses + each.reshape(len(seen), -1).mean(1)
        (gradient,) = torch.autograd.grad(losses.sum(), self._flat)
        self._adam.step(gradient)
        self._losses += losses.detach()
        return losses

    def _seen(self, chosen: Tensor) -> Tensor:
        """Varied inputs [S, B, 3, H, W] of the chosen maps [S, B]."""
        draw = Draws(None, self._device, self._settings.batch, chosen.shape[1])
        kind = self._recipe.model.input
        maps, points = (held.index_select(0, chosen.flatten()) for held in (self._maps, self._keypoints))
        return inputs(kind, maps, points, self._recipe.augment, draw).reshape(*chosen.shape, *INPUTS[kind])

    def _mixed(self, seen: Tensor, targets: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Each map mixed with another of its part and batch, where the recipe says so."""
        if not self._settings.mixup:
            return seen, targets
        keys = torch.rand(self._settings.batch, device=self._device)[: real.shape[1]]
        other = (keys + 2 * (1 - real)).argsort(1)  # those that fill the batch stay behind the real ones
        maps = other[:, :, None, None, None].expand_as(seen)
        return (
            torch.lerp(seen.gather(1, maps), seen, self._mix_share),
            torch.lerp(targets.gather(1, _for_classes(other)), targets, self._mix_share),
        )

    def _logits(self, flat: Tensor, buffers: dict[str, Tensor], seen: Tensor) -> Tensor:
        """Maps [S, B, 3, H, W] -> [S, B, K], each part's by its own network."""
        split = torch.split(flat, [shape.numel() for shape in self._shapes.values()], 1)
        named = {name: part.reshape(-1, *shape) for (name, shape), part in zip(self._shapes.items(), split, strict=True)}

        def alone(parameters: dict[str, Tensor], own: dict[str, Tensor], maps: Tensor) -> Tensor:
            out: Tensor = functional_call(self._network, (parameters, own, self._fixed), (maps,))
            return out

        if len(flat) > 1:
            together: Tensor = vmap(alone, randomness="same")(named, buffers, seen)
            return together
        first, own = ({name: value[0] for name, value in values.items()} for values in (named, buffers))
        return alone(first, own, seen[0])[None]

    @torch.no_grad()
    def look(self) -> Tensor:
        """The shown parameters' logits [S, n, K] of the watched maps. Asks the host for nothing."""
        assert self._watched is not None
        self._network.eval()
        logits = self._logits(self._shown, self._shown_buffers, self._watched)
        return logits.reshape(len(logits), 2, -1, len(CLASSES)).mean(1)

    @torch.no_grad()
    def _show(self) -> None:
        """Write down the parameters as they would be if this were the last step (`training.fit`)."""
        back = 1 - self._settings.blend
        self._shown.copy_(self._flat if self._mean is None or not self._averaged else self._mean)
        self._shown.lerp_(self._start, back)
        for name, shown in self._shown_buffers.items():
            shown.copy_(self._buffers[name])
            if shown.is_floating_point():
                shown.lerp_(self._start_buffers[name], back)

    def _network_of(self, row: int) -> nn.Module:
        """A network of its own with the shown parameters of a part, on the CPU."""
        split = torch.split(self._shown[row], [shape.numel() for shape in self._shapes.values()])
        state = {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), split, strict=True)}
        network = deepcopy(self._network)
        network.load_state_dict(state | {name: value[row] for name, value in self._shown_buffers.items()})
        return network.eval()


def _for_classes(rows: Tensor) -> Tensor:
    """Indices [S, B] of rows of [S, N, K], for `gather`."""
    return rows[:, :, None].expand(-1, -1, len(CLASSES))


def _padded(watched: Sequence[Tensor]) -> Tensor:
    """Each part's watched maps, filled up to the longest with empty ones, and their mirror images: [S, 2 n, 3, H, W]."""
    longest = max(map(len, watched))
    filled = [functional.pad(maps, (0, 0, 0, 0, 0, 0, 0, longest - len(maps))) for maps in watched]
    return torch.stack([with_mirrored(maps) for maps in filled])
