from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from training.datasets import CLASSES
from training.units import (
    NUISANCES,
    PROTOTYPES,
    SIDED,
    STRAY,
    UNIT_NAMES,
    UNITS,
    UNMIRRORED,
    Prototype,
    chances,
    placed_patches,
    shares,
    shown,
)


def strengths(label: str, count: int = 2000) -> np.ndarray:
    return shown(np.full(count, CLASSES.index(label)), np.random.default_rng(5))


def test_each_class_has_prototypes_of_units_that_exist() -> None:
    assert tuple(PROTOTYPES) == CLASSES
    for prototypes in PROTOTYPES.values():
        table = chances(prototypes)
        assert table.shape == (len(prototypes), len(UNIT_NAMES)) and table.min() >= 0 and table.max() <= 1
        assert shares(prototypes).sum() == pytest.approx(1) and shares(prototypes).min() > 0


def test_chances_of_what_a_prototype_names_and_does_not_name() -> None:
    (row,) = chances((Prototype(1, {"AU4": 0.5}),))
    assert row[UNIT_NAMES.index("AU4")] == 0.5
    assert row[UNIT_NAMES.index("AU12")] == STRAY
    assert all(row[UNIT_NAMES.index(nuisance.name)] == 0 for nuisance in NUISANCES)


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'AU99'; there are AU1, AU2"):
        chances((Prototype(1, {"AU12": 1}), Prototype(1, {"AU99": 0.5})))


@pytest.mark.parametrize("chance", [-0.1, 1.1, float("nan")])
def test_a_chance_outside_zero_to_one_is_refused(chance: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        chances((Prototype(1, {"AU12": chance}),))


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_the_right_side_mirrors_the_left(name: str) -> None:
    placed = placed_patches(name)
    lefts, rights, middles = ([patch for patch, side in placed if side == which] for which in (0, 1, None))
    assert len(lefts) == len(rights) and len(lefts) + len(middles) == len(UNITS[name])
    for left, right in zip(lefts, rights, strict=True):
        assert left.anchor in SIDED
        assert (right.dx, right.dy, right.half_x, right.half_y) == (-left.dx, left.dy, left.half_x, left.half_y)
        assert (right.u, right.v) == (left.u if name == UNMIRRORED else -left.u, left.v)
    assert all(patch.dx == 0 and patch.u == 0 and patch.anchor not in SIDED for patch in middles)


def test_classes_show_their_units() -> None:
    positive, surprise, negative = (
        (np.abs(strengths(label)) > 0).any(1).mean(0) for label in ("positive", "surprise", "negative")
    )
    at = {name: UNIT_NAMES.index(name) for name in UNIT_NAMES}
    assert positive[at["AU12"]] > 0.9 and max(surprise[at["AU12"]], negative[at["AU12"]]) < 0.1
    assert surprise[at["AU1"]] > 0.8 and max(positive[at["AU1"]], negative[at["AU1"]]) < 0.1
    assert negative[at["AU4"]] > 0.5 and max(positive[at["AU4"]], surprise[at["AU4"]]) < 0.1
    for nuisance in NUISANCES:
        often = [share[at[nuisance.name]] for share in (positive, surprise, negative)]
        assert np.allclose(often, nuisance.often, atol=0.05)  # four standard errors at most: 0.045


def test_some_smiles_are_one_sided_and_neither_side_is_preferred() -> None:
    left, right = strengths("positive")[:, :, UNIT_NAMES.index("AU12")].T
    there = left + right > 0
    lean = (left - right)[there] / (left + right)[there]
    assert abs(np.median(lean)) < 0.1
    assert 0.02 < (np.abs(lean) > 0.99).mean() < 0.2
