"""What a step of fitting costs on a GPU: operations, bytes and kernels, counted without running it.

    python -m lab.training_cost configs/train/ahmsa-paper.toml --folds 68

Counted on PyTorch's meta device, where tensors have shapes and no content: floating-point operations of matrix products and
convolutions (a multiplication and an addition are two), and the bytes of every operation's inputs and outputs, as if no cache
helped: an upper bound of the traffic. Each operation that is no view is a kernel to launch at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engine.geometry import CANONICAL_KEYPOINTS, MAP_SIDE
from engine.models import build
from lab.command import run
from training.datasets import CLASSES, FlowMaps
from training.recipe import Recipe, fit_of, read_recipe
from training.stacked.fit import Stack, stackable

MAPS, HELD_OUT = 442, 7
"""The composite database's, and those of a subject, more or less."""

META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """Of one step: rows of its batch, operations, bytes read and written, kernels."""

    batch: int
    operations: int
    bytes: int
    kernels: int


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write, and the operations that are no views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes, self.kernels = 0, 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        aliases = [returned.alias_info for returned in operation._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.kernels += 1
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor))
        return out


def backward_operations(
    gradient: Sequence[int], maps: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any, **__: Any
) -> int:
    """Of a convolution's gradients with respect to its input and its weight, with groups (PyTorch's own formula has none): each
    takes as many as the convolution itself."""
    once = 2 * math.prod(gradient) * math.prod(weight[1:])
    return once * sum(shape is not None for shape in out_shape[:2])


def step_costs(recipe: Recipe, folds: int) -> list[Cost]:
    """Of the full and of the last step of an epoch, with so many folds stacked."""
    draw = np.random.default_rng(0)
    maps = draw.random((MAPS, 3, MAP_SIDE, MAP_SIDE), np.float32)
    names = tuple(map(str, range(MAPS)))
    labels = np.arange(MAPS) % len(CLASSES)
    data = FlowMaps(maps, np.stack([CANONICAL_KEYPOINTS] * MAPS), labels, names, ("",) * MAPS, names)
    with META:
        state = build(recipe.model.name, len(CLASSES), **recipe.model.options).state_dict()
    parts = [range(HELD_OUT, MAPS)] * folds
    stack = Stack(recipe, 0, data, parts, seed=0, state=state, device=META)
    stack.step(stack.widths[0])  # makes what is made once
    return [_counted(stack, width) for width in dict.fromkeys((stack.widths[0], stack.widths[-1]))]


def _counted(stack: Stack, width: int) -> Cost:
    backward = {torch.ops.aten.convolution_backward: backward_operations}
    operations = FlopCounterMode(display=False, custom_mapping=backward)
    with operations, Traffic() as traffic:
        stack.step(width)
    return Cost(width, operations.get_total_flops(), traffic.bytes, traffic.kernels)


def main(
    recipes: Annotated[list[Path], typer.Argument(help="Recipes, TOML files such as those in configs/train.")],
    folds: Annotated[int, typer.Option(min=1, help="Folds stacked; networks with batch norm are fitted one by one.")] = 1,
) -> None:
    """Print what a step of each recipe costs."""
    typer.echo("| recipe | folds | batch | GFLOP a step | GB a step | kernels | steps an epoch | PFLOP for all epochs |")
    typer.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path in recipes:
        recipe = read_recipe(path)
        together, settings = folds if stackable(recipe) else 1, fit_of(recipe, 0)
        steps = math.ceil((MAPS - HELD_OUT) / settings.batch)
        costs = step_costs(recipe, together)
        whole = settings.epochs * ((steps - 1) * costs[0].operations + costs[-1].operations) / 1e15
        for cost in costs:
            cells = (path.stem, together, cost.batch, f"{cost.operations / 1e9:.0f}", f"{cost.bytes / 1e9:.1f}", cost.kernels)
            typer.echo(f"| {' | '.join(map(str, cells))} | {steps} | {whole:.2f} |")


if __name__ == "__main__":
    run(main)
