from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from lab import training_cost
from lab.training_cost import META, Cost, Traffic, backward_operations, step_costs
from training.recipe import read_recipe

TINY = """name = "tiny"
[model]
name = "ahmsa"
options = { width = 8, heads = 2, repeats = [1, 1, 1] }
[fit]
epochs = 10
batch = 256
learning_rate = 1e-3
"""


def test_bytes_and_kernels_are_those_of_operations_that_are_no_views() -> None:
    left, right = torch.empty(4, 8, device=META), torch.empty(8, 2, device=META)
    with Traffic() as traffic:
        (left.view(2, 2, 8).flatten(0, 1) @ right).add_(1)
    assert traffic.kernels == 2 and traffic.bytes == 4 * ((32 + 16 + 8) + (8 + 8))


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolutions_gradients_take_twice_its_own_operations(groups: int) -> None:
    maps = torch.empty(3, 8, 9, 9, device=META, requires_grad=True)
    weight = torch.empty(12, 8 // groups, 3, 3, device=META, requires_grad=True)
    mapping = {torch.ops.aten.convolution_backward: backward_operations}
    with FlopCounterMode(display=False, custom_mapping=mapping) as forward:
        out = functional.conv2d(maps, weight, groups=groups)
    with FlopCounterMode(display=False, custom_mapping=mapping) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == 2 * 3 * 7 * 7 * 12 * (8 // groups) * 9
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_stacked_folds_cost_each_the_same(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    two, many = (step_costs(read_recipe(tmp_path / "tiny.toml"), folds) for folds in (2, 20))
    assert [cost.batch for cost in many] == [256, 186]
    for few, cost in zip(two, many, strict=True):
        assert cost.operations == 10 * few.operations > 1e8 and cost.bytes == pytest.approx(10 * few.bytes, rel=0.1)
        assert cost.kernels == few.kernels


def test_a_table_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    costs = [Cost(256, 3 * 10**12, 5 * 10**9, 70), Cost(186, 2 * 10**12, 4 * 10**9, 70)]
    monkeypatch.setattr(training_cost, "step_costs", lambda recipe, folds: costs)
    app = typer.Typer()
    app.command()(training_cost.main)
    done = CliRunner().invoke(app, [f"{tmp_path}/tiny.toml", "--folds", "20"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2:] == [
        "| tiny | 20 | 256 | 3000 | 5.0 | 70 | 2 | 0.05 |",
        "| tiny | 20 | 186 | 2000 | 4.0 | 70 | 2 | 0.05 |",
    ]
