from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import training.fit
from engine.errors import WeightsError
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.fit import fit
from training.kernel import fit_kernel
from training.pretrain import saved_start, start_parameters
from training.recipe import Recipe
from training.simulate import simulate

OPTIONS: dict[str, Any] = {"width": 16, "heads": 2, "repeats": (1, 1, 1)}
PRETRAIN: dict[str, Any] = {"maps": 100, "epochs": 2, "batch": 50, "learning_rate": 1e-3}


def recipe(
    members: int = 1, epochs: int = 2, pretrain: dict[str, Any] | None = None, kernel: float | None = None, **fitting: Any
) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "ahmsa", "members": members, "input": "whole", "options": OPTIONS},
            "fit": {"epochs": epochs, "batch": 12, "learning_rate": 5e-3, **fitting},
            "augment": {"shift": 0.5, "gain": 0.1},
            "pretrain": pretrain,
            "kernel": None if kernel is None else {"share": kernel, "centres": 60},
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=2))


def same(one: nn.Module, other: nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("kind", ["whole", "five-regions"])
def test_fitting_learns_to_distinguish_the_classes(data: FlowMaps, tmp_path: Path, kind: str) -> None:
    long = recipe(epochs=12)
    network = fit(long.model_copy(update={"model": long.model.model_copy(update={"input": kind})}), data)
    unseen = htnet_3db.load(write_dataset(tmp_path / "other", per_class=2, subjects=(("smic", "s99"),)))
    answers = network(torch.from_numpy(unseen.inputs(kind))).argmax(1).numpy()
    assert np.array_equal(answers, unseen.labels) and not network.training


def test_progress_is_reported_for_each_epoch_of_each_member_and_stage(data: FlowMaps) -> None:
    calls: list[tuple[str, int, int]] = []
    fit(
        recipe(2, pretrain={**PRETRAIN, "members": 1}),
        data,
        progress=lambda stage, member, epoch, _loss: calls.append((stage, member, epoch)),
    )
    first = [("pre-training", 0, 1), ("pre-training", 0, 2), ("fitting", 0, 1), ("fitting", 0, 2)]
    assert calls == [*first, ("fitting", 1, 1), ("fitting", 1, 2)]


@pytest.mark.parametrize("change", [{}, {"mixup": 0.4}, {"average_last": 0.5}, {"pretrain": PRETRAIN}, {"kernel": 0.5}])
def test_the_same_seed_gives_the_same_parameters(data: FlowMaps, change: dict[str, Any]) -> None:
    tried = recipe(**change)
    torch.manual_seed(1)
    one = fit(tried, data, seed=7)
    torch.manual_seed(2)
    assert same(one, fit(tried, data, seed=7)) and not same(one, fit(tried, data, seed=8))


def test_a_blend_is_between_the_start_and_the_fitted_network(data: FlowMaps) -> None:
    wanted = {"epochs": 3, "batch": 12, "learning_rate": 5e-3, "blend": 0.25}
    blended = recipe(pretrain=PRETRAIN, blend=0.25)
    start, fitted = start_parameters(blended, 7, 0), fit(recipe(pretrain=PRETRAIN), data, seed=7).members[0].state_dict()
    for name, value in fit(blended, data, seed=7).members[0].state_dict().items():
        assert torch.allclose(value, start[name] + 0.25 * (fitted[name] - start[name]), atol=1e-6), name
    later = fit(recipe(pretrain={**PRETRAIN, "after": wanted}), data, seed=7)  # the fit after pre-training can say so too
    assert not same(later, fit(recipe(pretrain={**PRETRAIN, "after": {**wanted, "blend": 1.0}}), data, seed=7))


def test_watching_shows_what_the_last_epoch_would_give(data: FlowMaps) -> None:
    tried = recipe(epochs=1, pretrain=PRETRAIN, blend=0.25, average_last=0.5)
    seen: list[nn.Module] = []
    fitted = fit(tried, data, watch=lambda _m, _e, network: seen.append(network))
    assert same(seen[0], fitted.members[0])


def test_only_a_pre_trained_start_is_blended() -> None:
    for pretrain in (None, {**PRETRAIN, "members": 1}):
        with pytest.raises(ValueError, match="not all networks have such a start"):
            recipe(members=2, pretrain=pretrain, blend=0.5)


def test_simulated_maps_beside_the_real_ones_are_learnt_too(data: FlowMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.fit, "SIMULATED", 600)
    unseen = simulate(300, 5)
    maps, labels = torch.from_numpy(unseen.maps), torch.from_numpy(unseen.labels)

    def right(network: nn.Module) -> float:
        with torch.inference_mode():
            return float((network(maps).argmax(1) == labels).float().mean())

    alone, beside = recipe(epochs=20), recipe(epochs=20, simulated=48)
    both = fit(beside, data, seed=7)
    assert right(both) > right(fit(alone, data, seed=7)) + 0.1
    assert np.array_equal(both(torch.from_numpy(data.inputs("whole"))).argmax(1).numpy(), data.labels)
    assert same(both, fit(beside, data, seed=7))


def test_each_member_begins_and_learns_on_its_own(data: FlowMaps) -> None:
    both = fit(recipe(2), data, seed=7)
    assert not same(both.members[0], both.members[1])
    assert same(both.members[0], fit(recipe(1), data, seed=7).members[0])


def test_fitting_leaves_the_callers_random_numbers_alone(data: FlowMaps) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(recipe(pretrain=PRETRAIN, kernel=0.5), data)
    assert torch.equal(torch.rand(3), expected)


def test_it_makes_no_difference_whether_starts_are_given_or_made(data: FlowMaps, tmp_path: Path) -> None:
    pretrained = recipe(2, pretrain=PRETRAIN)
    starts = [saved_start(tmp_path, pretrained, 7, member) for member in range(2)]
    calls: list[str] = []
    given = fit(pretrained, data, seed=7, starts=starts, progress=lambda stage, *_: calls.append(stage))
    assert set(calls) == {"fitting"} and same(given, fit(pretrained, data, seed=7))
    swapped = fit(pretrained, data, seed=7, starts=starts[::-1])
    assert not same(given, swapped)


@pytest.mark.parametrize("content", [b"", b"no parameters", b"PK\x03\x04"])
def test_a_damaged_start_is_an_error(data: FlowMaps, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "start.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"start\.pt cannot be read; delete it"):
        fit(recipe(pretrain=PRETRAIN), data, starts=[tmp_path / "start.pt"])


def test_a_pre_trained_network_is_fitted_by_its_own_settings(data: FlowMaps) -> None:
    """So slowly that it stays where it began, while the other network moves on from where it began."""
    after = {"epochs": 1, "batch": 12, "learning_rate": 1e-7}
    both = recipe(2, pretrain={**PRETRAIN, "members": 1, "after": after})
    calls: list[tuple[str, int]] = []
    network = fit(both, data, seed=7, progress=lambda stage, member, *_: calls.append((stage, member)))
    assert calls.count(("fitting", 0)) == 1 and calls.count(("fitting", 1)) == 2
    ways = []
    for member, fitted in enumerate(network.members):
        start = start_parameters(both, 7, member)
        ways.append(max(float((value - start[name]).abs().max()) for name, value in fitted.state_dict().items()))
    assert ways[0] < 1e-6 and ways[1] > 1e-3


def test_looking_on_sees_each_epochs_network_and_changes_nothing(data: FlowMaps) -> None:
    seen: list[tuple[int, int, float]] = []
    maps = torch.from_numpy(data.inputs("whole"))
    tried = recipe(2, epochs=3)
    tried.model.options["dropout"] = 0.3

    def watch(member: int, epochs: int, network: nn.Module) -> None:
        assert not network.training
        with torch.inference_mode():
            seen.append((member, epochs, float(network(maps).sum())))

    watched = fit(tried, data, watch=watch)
    assert [row[:2] for row in seen] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert len({row[2] for row in seen}) == 6 and same(watched, fit(tried, data))
    with torch.inference_mode():
        assert seen[-1][2] == pytest.approx(float(watched.members[1](maps).sum()), abs=1e-4)


def test_averaged_parameters_are_the_mean_over_the_last_steps(data: FlowMaps) -> None:
    """Two steps an epoch and the last epoch's share averaged: the mean of the network before and after its last step."""
    last: list[nn.Module] = []
    plain, mean = recipe(epochs=4), recipe(epochs=4, average_last=0.25)
    final = fit(plain, data, seed=3).members[0].state_dict()
    averaged = fit(mean, data, seed=3, watch=lambda _m, _e, network: last.append(network)).members[0].state_dict()
    before = {name: 2 * averaged[name] - value for name, value in final.items()}  # the step before the last
    gone = {name: float((final[name] - before[name]).abs().max()) for name in final}
    assert max(gone.values()) > 0 and max(gone.values()) < 5e-3  # one late step of Adam is shorter than its rate
    assert all(torch.equal(value, averaged[name]) for name, value in last[-1].state_dict().items()), "as if it were the last"


def test_a_kernel_machine_of_the_same_maps_comes_along(data: FlowMaps) -> None:
    tried = recipe(kernel=0.3)
    network, alone = fit(tried, data), fit_kernel(tried, data, tried.seed)
    assert network.kernel is not None and alone is not None and network.kernel_share == 0.3
    assert tried.kernel is not None and same(network.kernel, alone) and len(network.kernel.centres) == tried.kernel.centres
    assert fit(recipe(), data).kernel is None
