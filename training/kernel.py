"""Fitting the kernel machine: kernel logistic regression on maps and their mirror images.

The centres are simulated maps, so that a fitted file contains no recorded face. The machine's output is a sum of kernels to
them (the Nystroem method: Williams and Seeger, NIPS 2000).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.kernel import KernelMachine, compared, gaussian
from engine.types import F32
from training.datasets import CLASSES, FlowMaps
from training.descent import class_weights
from training.recipe import Recipe
from training.simulate import simulate

STEPS = 60
"""Of the optimizer; the loss no longer changes in its sixth figure after some forty on the composite database."""

RIDGE = 1e-6
"""Added to the diagonal of the centres' kernel matrix, whose smallest eigenvalues drown in rounding."""

_CENTRES_SEED = 999
"""Keeps the centres apart from the members' simulated maps."""


def fit_kernel(recipe: Recipe, data: FlowMaps, seed: int) -> KernelMachine | None:
    """The recipe's kernel machine fitted to all maps of data, or None where the recipe has none.

    The loss is the networks': cross-entropy, the classes weighed alike, plus penalty / 2 times the solution's squared norm.
    seed draws the centres alone.
    """
    settings = recipe.kernel
    if settings is None:
        return None
    drawn = simulate(settings.centres, seed * 1000 + _CENTRES_SEED)
    simulated = FlowMaps(drawn.maps, drawn.keypoints, drawn.labels, (), (), ())
    centres, turned = _both(simulated.inputs(recipe.model.input))
    rate = settings.spread / float(torch.cat((centres, turned)).var(0).sum())
    among = _similar(centres, turned, centres, rate)
    factor = torch.linalg.cholesky((among + among.T) / 2 + RIDGE * torch.eye(len(among), dtype=torch.float64))
    seen = _similar(*_both(data.inputs(recipe.model.input)), centres, rate)
    labels = torch.from_numpy(data.labels)
    weights = class_weights(data.labels, recipe.fit.class_weight_power).double()[labels]
    whitened = torch.linalg.solve_triangular(factor, seen.T, upper=False).T
    solution, bias = _solved(whitened, functional.one_hot(labels, len(CLASSES)) * weights[:, None], settings.penalty)
    machine = KernelMachine(len(CLASSES), settings.centres, drawn.maps.shape[-1])
    machine.centres, machine.bias = centres.float(), bias.float()
    machine.weights = torch.linalg.solve_triangular(factor.T, solution, upper=True).float()
    machine.rate = torch.tensor(rate, dtype=torch.float32)
    return machine.eval()


def _both(maps: F32) -> tuple[Tensor, Tensor]:
    """What the kernel compares of maps [N, 3, 28, 28] and of their mirror images, each [N, D]."""
    there = torch.from_numpy(maps)
    turned = torch.cat((1 - there[:, :1].flip(3), there[:, 1:].flip(3)), 1)
    return compared(there).double(), compared(turned).double()


def _similar(maps: Tensor, turned: Tensor, centres: Tensor, rate: float) -> Tensor:
    """The kernel [N, M] of maps to centres, averaged over the mirror image as a committee does."""
    return (gaussian(maps, centres, rate) + gaussian(turned, centres, rate)) / 2


def _solved(seen: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights [M, K] and bias [K] that minimize the loss for features [N, M] and weighted targets [N, K]."""
    solution = torch.zeros((seen.shape[1], targets.shape[1]), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([solution, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        misfit = -(targets * torch.log_softmax(seen @ solution + bias, 1)).sum(1).mean()
        value = misfit + penalty / 2 * solution.square().sum() / len(targets)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return solution.detach(), bias.detach()
