"""Fitting the kernel machine: kernel logistic regression on maps and their mirror images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.kernel import KernelMachine, described, gaussian
from training.datasets import CLASSES, FlowMaps
from training.recipe import Recipe
from training.weights import class_weights

STEPS = 60
"""Of the optimizer; the loss no longer changes in its sixth figure after some forty on the composite database."""


def fit_kernel(recipe: Recipe, data: FlowMaps) -> KernelMachine | None:
    """The recipe's kernel machine fitted to all maps of data, or None where the recipe has none. Nothing in it is random.

    The loss is the networks': cross-entropy, the classes weighed alike, plus penalty / 2 times the solution's squared norm.
    """
    settings = recipe.kernel
    if settings is None:
        return None
    maps = torch.from_numpy(data.inputs(recipe.model.input))
    seen, turned = (described(m).double() for m in (maps, torch.cat((1 - maps[:, :1].flip(3), maps[:, 1:].flip(3)), 1)))
    rate = settings.spread / float(torch.cat((seen, turned)).var(0).sum())
    similar = (gaussian(seen, seen, rate) + gaussian(turned, seen, rate)) / 2  # a committee averages over the mirror image
    labels = torch.from_numpy(data.labels)
    weights = class_weights(data.labels, recipe.fit.class_weight_power).double()[labels]
    solution, bias = _solved(similar, functional.one_hot(labels, len(CLASSES)) * weights[:, None], settings.penalty)
    machine = KernelMachine(len(CLASSES), len(data), maps.shape[-1])
    machine.centres, machine.weights = seen.float(), solution.float()
    machine.bias, machine.rate = bias.float(), torch.tensor(rate, dtype=torch.float32)
    return machine.eval()


def _solved(similar: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights [N, K] and bias [K] that minimize the loss for the kernel matrix [N, N] and weighted targets [N, K]."""
    solution = torch.zeros(targets.shape, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([solution, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        found = similar @ solution
        misfit = -(targets * torch.log_softmax(found + bias, 1)).sum(1).mean()
        value = misfit + penalty / 2 * (solution * found).sum() / len(targets)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return solution.detach(), bias.detach()
