from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.errors import ConfigError
from engine.geometry import INPUTS
from engine.models import ARCHITECTURES, Architecture
from tests.flowmaps import write_dataset
from training import augment
from training import fit as one_by_one
from training.datasets import CLASSES, FlowMaps, htnet_3db
from training.device import CPU
from training.pretrain import start_parameters
from training.recipe import AugmentSettings, Recipe
from training.split import leave_one_subject_out
from training.stacked import fit as stacked
from training.stacked.fit import Stack, bytes_each, fit_stacked, stackable, steps

OPTIONS: dict[str, dict[str, Any]] = {
    "ahmsa": {"width": 8, "heads": 2, "repeats": (1, 1, 1)},
    "htnet": {"width": 12, "heads": 3, "repeats": (1, 1, 1)},
    "hfa": {},
}
PRETRAIN: dict[str, Any] = {"maps": 100, "epochs": 1, "batch": 50, "learning_rate": 1e-3}
VARIED = {
    "flip": True,
    "shift": 1,
    "jitter": 0.5,
    "zoom": 0.1,
    "turn": 5,
    "gain": 0.2,
    "noise": 0.1,
    "smooth_noise": 0.1,
    "blur": 1,
}
Parts = list[tuple[int, ...]]


class WithBatchNorm(nn.Module):
    """In the place of HFA-Net, which takes seconds for a step."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 7, 7), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
        )

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layers(maps)
        return out


def recipe(network: str = "ahmsa", options: dict[str, Any] | None = None, kind: str = "whole", **parts: Any) -> Recipe:
    fitting = {"epochs": 3, "batch": 64, "learning_rate": 5e-3, **parts.pop("fit", {})}
    model = {"name": network, "input": kind, "options": OPTIONS[network] | (options or {}), **parts.pop("model", {})}
    whole = {"name": "tiny", "model": model, "fit": fitting, "augment": {"flip": False}, **parts}
    return Recipe.model_validate(whole)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    """Of four subjects: 2, 3, 5 and 6 maps, so that folds differ in length."""
    found = htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=2))
    chosen: list[int] = []
    for subject, count in zip(dict.fromkeys(found.subjects), (2, 3, 5, 6), strict=True):
        chosen += [i for i, name in enumerate(found.subjects) if name == subject][-count:]
    return found.take(chosen)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam with a large epsilon: with its own it makes whole steps of the rounding of gradients that are nearly 0."""
    monkeypatch.setattr("training.stacked.adam.EPSILON", 1e-2)
    for name in ("Adam", "AdamW"):
        monkeypatch.setattr(torch.optim, name, partial(getattr(torch.optim, name), eps=1e-2))


@pytest.fixture(scope="module")
def parts(data: FlowMaps) -> Parts:
    return [fold.train for fold in leave_one_subject_out(data.subjects)]


def simulated(kind: str, settings: AugmentSettings, seed: int) -> tuple[Tensor, Tensor]:
    """In the place of `training.fit.simulated_inputs`, which takes long and is kept for other tests."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(20, *INPUTS[kind], generator=draw), torch.arange(20) % len(CLASSES)


def distance(one: nn.Module, other: nn.Module) -> float:
    """The greatest difference of any parameter or running statistic."""
    others = other.state_dict()
    return max(float((value - others[name]).abs().max()) for name, value in one.state_dict().items())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "tried",
    [
        recipe(fit={"label_smoothing": 0.1, "clip": 0.5, "weight_decay": 0.05}),
        recipe(
            pretrain=PRETRAIN,
            fit={"blend": 0.5, "average_last": 0.5, "schedule": "constant"},
            kernel={"share": 0.3, "centres": 20},
        ),
        recipe("htnet", fit={"optimizer": "adam", "class_weight_power": 0.0, "clip": 0.0, "learning_rate": 5e-4}),
    ],
    ids=["smoothed and clipped", "pre-trained, averaged, blended, kernel", "htnet"],
)
def test_stacked_parts_give_what_each_gives_one_by_one(data: FlowMaps, parts: Parts, tried: Recipe) -> None:
    """In one batch and without variation, so that nothing that is drawn matters."""
    together = fit_stacked(tried, data, parts, CPU, seed=3)
    for part, fitted in zip(parts, together, strict=True):
        assert not fitted.training and distance(fitted, one_by_one.fit(tried, data.take(part), seed=3)) < 1e-6
    assert distance(together[0], together[1]) > 1e-4


@pytest.mark.usefixtures("exact")
def test_batch_norm_sees_the_parts_own_maps_alone(data: FlowMaps, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its running statistics are part of the distance, and a batch that was filled up would change them."""
    monkeypatch.setitem(ARCHITECTURES, "hfa", Architecture(__name__, "WithBatchNorm", 28))
    tried = recipe("hfa")
    assert not stackable(tried) and stackable(recipe())
    fitted = fit_stacked(tried, data, parts[:1], CPU, seed=3)[0]
    assert distance(fitted, one_by_one.fit(tried, data.take(parts[0]), seed=3)) < 1e-6
    uneven = Stack(
        recipe("hfa", fit={"batch": 8}), 0, data, parts[:1], seed=0, state=fitted.members[0].state_dict(), device=CPU
    )
    assert uneven.widths == [8, len(parts[0]) - 8]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "tried",
    [
        recipe(options={"dropout": 0.2}, kind="five-regions", fit={"batch": 8}, augment=VARIED),
        recipe(fit={"batch": 8, "mixup": 0.4, "simulated": 4}, augment={"flip": True}, model={"members": 2}),
    ],
    ids=["variation and dropout", "mixed, beside simulated maps, two members"],
)
def test_a_parts_result_does_not_depend_on_those_beside_it(
    data: FlowMaps, parts: Parts, tried: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 10 to 14 maps in batches of 8: the second batch is filled up."""
    monkeypatch.setattr(stacked, "simulated_inputs", simulated)
    together = fit_stacked(tried, data, parts, CPU, seed=3)
    for part, fitted in zip(parts[1:], together[1:], strict=True):
        assert distance(fitted, fit_stacked(tried, data, [part], CPU, seed=3)[0]) < 1e-6
    assert distance(together[0], fit_stacked(tried, data, parts[:1], CPU, seed=4)[0]) > 1e-3


def test_every_map_of_a_part_counts_once_an_epoch_and_no_other(data: FlowMaps, parts: Parts) -> None:
    """So slowly that the network stays where it began: the mean of the batches' losses, if the batches are of one length."""
    part, slow = parts[3][:8], {"epochs": 2, "batch": 4, "learning_rate": 1e-12, "class_weight_power": 0.0}
    lost: list[float] = []
    fit_stacked(recipe(fit=slow), data, [part], CPU, progress=lambda stage, member, epoch, loss: lost.append(loss))
    network = one_by_one.fit(recipe(fit=slow), data.take(part)).members[0]
    maps, labels = torch.from_numpy(data.inputs("whole")[list(part)]), torch.from_numpy(data.labels[list(part)])
    assert lost == pytest.approx([float(nn.functional.cross_entropy(network(maps), labels).detach())] * 2, rel=1e-5)


def test_held_out_maps_change_nothing(data: FlowMaps, parts: Parts) -> None:
    held_out = sorted(set(range(len(data))) - set(parts[0]))
    maps, labels = data.maps.copy(), data.labels.copy()
    maps[held_out], labels[held_out] = np.nan, 0
    other = FlowMaps(maps, data.keypoints, labels, data.names, data.databases, data.subjects)
    tried = recipe(fit={"batch": 8, "mixup": 0.4})
    one, two = (fit_stacked(tried, each, parts[:1], CPU)[0] for each in (data, other))
    assert distance(one, two) == 0.0


def test_watching_shows_each_epochs_answers_and_changes_nothing(data: FlowMaps, parts: Parts) -> None:
    tried = recipe(options={"dropout": 0.3}, pretrain=PRETRAIN, fit={"blend": 0.5, "average_last": 0.5}, model={"members": 2})
    watched = [torch.from_numpy(data.inputs("whole")[:count]) for count in (2, 3, 1, 5)]
    seen: dict[int, list[list[Tensor]]] = {0: [], 1: []}
    fitted = fit_stacked(tried, data, parts, CPU, watched=watched, watch=lambda member, rows: seen[member].append(list(rows)))
    plain = fit_stacked(tried, data, parts, CPU)
    assert [len(rows) for rows in seen.values()] == [3, 3]
    for part, maps in enumerate(watched):
        assert distance(fitted[part], plain[part]) == 0.0
        alone, _ = fitted[part].answers(maps)
        for member in (0, 1):
            assert torch.allclose(seen[member][-1][part], alone[member], atol=1e-5)
            assert not torch.allclose(seen[member][0][part], alone[member], atol=1e-3)


def test_numbers_that_are_not_finite_stop_the_fit(data: FlowMaps, parts: Parts) -> None:
    with pytest.raises(ConfigError, match=r"in epoch 1 .* no longer finite; lower learning_rate"):
        fit_stacked(recipe(fit={"learning_rate": 3e38, "schedule": "constant", "clip": 0.0}), data, parts, CPU)


def test_parts_are_alike_that_take_as_many_steps() -> None:
    after = {"epochs": 1, "batch": 10, "learning_rate": 1e-3}
    two = recipe(model={"members": 2}, pretrain={**PRETRAIN, "members": 1, "after": after})
    assert steps(two, 64) == (7, 1) and steps(two, 65) == (7, 2)


def test_memory_is_counted_by_parameters() -> None:
    assert bytes_each(recipe(options={"width": 16})) > 2 * bytes_each(recipe())


class HostTraffic(TorchDispatchMode):
    """Operations with a tensor of the host in them that is more than a number."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.device == CPU and (tensor.dim() or "copy" in str(operation)) for tensor in tensors):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", ["ahmsa", "htnet", "hfa"])
def test_a_step_and_a_look_ask_the_host_for_nothing(
    data: FlowMaps, parts: Parts, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a CUDA graph can hold, shown on the meta device: it has no values, so that asking for one fails."""
    monkeypatch.setattr(stacked, "simulated_inputs", simulated)
    everything = {"mixup": 0.4, "simulated": 4, "label_smoothing": 0.1, "average_last": 0.5, "weight_decay": 0.1}
    options = {"ahmsa": {"dropout": 0.1, "standardize": True}, "htnet": {}, "hfa": {"width": 32}}[network]
    kind = "whole-224" if network == "hfa" else "five-regions"
    tried = recipe(network, options, kind, fit=everything, augment=VARIED)
    chosen = parts[:1] if network == "hfa" else parts
    watched = [torch.zeros(2, 3, *(224, 224) if network == "hfa" else (28, 28)) for _ in chosen]
    meta = torch.device("meta")
    stack = Stack(tried, 0, data, chosen, seed=0, state=start_parameters(tried, 0, 0), device=meta, watched=watched)
    (width,) = stack.widths
    stack.step(width)  # makes what is made once
    with HostTraffic() as traffic:
        assert stack.step(width).shape == (len(chosen),)
        assert stack.look().shape == (len(chosen), 2, 3)
    assert traffic.found == []
    if network == "htnet":  # that it would be noticed
        augment._slopes.cache_clear()
        with HostTraffic() as traffic:
            stack.step(width)
        assert traffic.found
        with pytest.raises(RuntimeError, match="meta"):
            stack.look().sum().item()


@pytest.mark.gpu
def test_a_captured_fit_is_the_fit_step_by_step(data: FlowMaps, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = recipe(options={"dropout": 0.1}, fit={"batch": 8, "mixup": 0.4, "learning_rate": 1e-3}, augment=VARIED)
    device = torch.device("cuda", 0)
    watched = [torch.from_numpy(data.inputs("whole")[:4])] * len(parts)
    seen: list[list[Tensor]] = [[], []]
    both = []

    def note(seen: list[Tensor], member: int, rows: Sequence[Tensor]) -> None:
        seen.append(torch.stack(list(rows)))

    for way in (0, 1):
        if way:
            monkeypatch.setattr("training.stacked.fit.captured", lambda works, device: works)
        both.append(fit_stacked(tried, data, parts, device, seed=3, watched=watched, watch=partial(note, seen[way])))
    for one, other in zip(*both, strict=True):
        assert distance(one, other) < 1e-3
    assert torch.allclose(torch.stack(seen[0]), torch.stack(seen[1]), atol=2e-2)


@pytest.mark.gpu
def test_a_gpu_fits_what_a_cpu_fits(data: FlowMaps, parts: Parts) -> None:
    """In one batch and without variation; products of factors of 10 bits differ by some 1e-3."""
    tried, maps = recipe(fit={"learning_rate": 1e-3}), torch.from_numpy(data.inputs("whole"))
    for part, fitted in zip(parts, fit_stacked(tried, data, parts, torch.device("cuda", 0), seed=3), strict=True):
        alone = one_by_one.fit(tried, data.take(part), seed=3)
        assert torch.allclose(fitted.logits(maps), alone.logits(maps), atol=3e-2)
