from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import ConfigError, OutputError
from engine.models import build
from training.pretrain import State, check_network, saved_start, start_parameters
from training.recipe import Recipe
from training.simulate import simulate

OPTIONS: dict[str, Any] = {"width": 16, "heads": 2, "repeats": (1, 1, 1), "standardize": True}
PRETRAIN: dict[str, Any] = {"maps": 600, "epochs": 4, "batch": 32, "learning_rate": 5e-3}
BRIEF: dict[str, Any] = {**PRETRAIN, "maps": 100, "epochs": 1}


def recipe(pretrain: dict[str, Any] | None, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "ahmsa", "members": 2, "input": "whole", "options": OPTIONS, **model},
            "fit": {"epochs": 1, "batch": 12, "learning_rate": 1e-3},
            "pretrain": pretrain,
        }
    )


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_to_distinguish_simulated_maps() -> None:
    lost: list[tuple[int, float]] = []
    network = build("ahmsa", **OPTIONS)
    network.load_state_dict(start_parameters(recipe(PRETRAIN), 0, 0, lambda epoch, loss: lost.append((epoch, loss))))
    assert [epoch for epoch, _ in lost] == [1, 2, 3, 4]
    losses = [loss for _, loss in lost]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.6 * losses[0]
    others = simulate(400, seed=12345)
    with torch.inference_mode():
        answers = network.eval()(torch.from_numpy(others.maps)).argmax(1).numpy()
    assert (answers == others.labels).mean() > 0.7  # measured: .89; one in three by chance


def test_naming_units_counts_beside_naming_the_class() -> None:
    """Before anything is learnt a class costs ln 3, a unit ln 2."""
    lost: list[float] = []
    for units in (0.0, 2.0):
        start = {**BRIEF, "learning_rate": 1e-9, "units": units}
        start_parameters(recipe(start), 0, 0, lambda epoch, loss: lost.append(loss))
    assert lost[0] == pytest.approx(1.1, abs=0.2) and lost[1] - lost[0] == pytest.approx(2 * 0.69, abs=0.3)


def test_a_start_follows_from_seed_and_member_alone() -> None:
    torch.manual_seed(1)
    one = start_parameters(recipe(BRIEF), 3, 1)
    torch.manual_seed(2)
    assert same(one, start_parameters(recipe(BRIEF), 3, 1))
    assert not same(one, start_parameters(recipe(BRIEF), 3, 0)) and not same(one, start_parameters(recipe(BRIEF), 4, 1))


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    start_parameters(recipe(BRIEF), 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_members_that_are_not_pre_trained_are_freshly_drawn() -> None:
    some = recipe({**BRIEF, "members": 1})
    assert same(start_parameters(some, 0, 1), start_parameters(recipe(None), 0, 1))
    assert not same(start_parameters(some, 0, 0), start_parameters(recipe(None), 0, 0))
    assert same(start_parameters(some, 0, 0), start_parameters(recipe(BRIEF), 0, 0))


def test_a_start_contains_the_network_without_the_head_for_units() -> None:
    assert set(start_parameters(recipe(BRIEF), 0, 0)) == set(build("ahmsa", **OPTIONS).state_dict())


def test_a_network_without_features_is_refused() -> None:
    small = {"width": 24, "heads": 3, "repeats": (1, 1, 1)}
    htnet = recipe(BRIEF, name="htnet", input="four-regions", options=small)
    with pytest.raises(ConfigError, match=r"htnet cannot be pre-trained; remove \[pretrain\] from the recipe tiny"):
        start_parameters(htnet, 0, 0)
    with pytest.raises(ConfigError, match="htnet cannot be pre-trained"):
        check_network(htnet)
    check_network(recipe({**BRIEF, "members": 0}, name="htnet", input="four-regions", options=small))
    fresh = recipe(None, name="htnet", input="four-regions", options=small)
    assert start_parameters(fresh, 0, 0)


def test_a_start_is_written_once_and_used_again(tmp_path: Path) -> None:
    path = saved_start(tmp_path / "new" / "folder", recipe(BRIEF), 2, 1)
    assert path.parent == tmp_path / "new" / "folder" and list(path.parent.iterdir()) == [path]
    assert same(torch.load(path, weights_only=True), start_parameters(recipe(BRIEF), 2, 1))
    path.write_bytes(b"kept")
    assert saved_start(path.parent, recipe(BRIEF), 2, 1) == path and path.read_bytes() == b"kept"


def test_what_decides_a_start_decides_its_name(tmp_path: Path) -> None:
    plain = recipe(BRIEF)
    path = saved_start(tmp_path, plain, 0, 0)
    path.write_bytes(b"kept")
    for alike in (
        recipe({**BRIEF, "members": 1}, members=3),
        recipe({**BRIEF, "after": {"epochs": 7, "batch": 2, "learning_rate": 1.0}}),
        plain.model_copy(update={"fit": plain.fit.model_copy(update={"epochs": 9}), "name": "other"}),
    ):
        assert saved_start(tmp_path, alike, 0, 0) == path
    for other in (recipe({**BRIEF, "batch": 50}), recipe(BRIEF, options={**OPTIONS, "width": 8})):
        assert saved_start(tmp_path, other, 0, 0) != path
    assert len({saved_start(tmp_path, plain, seed, member) for seed, member in ((0, 0), (0, 1), (1, 0))}) == 3


def test_a_start_that_was_cut_off_in_the_writing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: State, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"cannot be written: .*No space left"):
            saved_start(tmp_path, recipe(BRIEF), 0, 0)
    assert not list(tmp_path.glob("*.pt"))
    assert same(
        torch.load(saved_start(tmp_path, recipe(BRIEF), 0, 0), weights_only=True), start_parameters(recipe(BRIEF), 0, 0)
    )


def test_processes_of_two_machines_with_one_number_write_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = list[Path]()

    def saved(state: State, path: Path) -> None:
        drafts.append(path)
        path.write_bytes(b"whole")

    monkeypatch.setattr(torch, "save", saved)
    monkeypatch.setattr("training.pretrain.start_parameters", lambda *_: {})
    saved_start(tmp_path, recipe(BRIEF), 0, 0).unlink()
    saved_start(tmp_path, recipe(BRIEF), 0, 0)
    assert len(set(drafts)) == 2


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        saved_start(tmp_path / "file", recipe(BRIEF), 0, 0)


def test_a_network_that_cannot_be_built_is_refused_at_no_cost() -> None:
    with pytest.raises(ConfigError, match="ahmsa: width, heads"):
        check_network(recipe(None, options={**OPTIONS, "heads": 0}))
