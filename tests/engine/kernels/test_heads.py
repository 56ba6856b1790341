"""The machine code's fit and numpy's are one."""

from __future__ import annotations

import numpy as np
import pytest

from engine.kernels import machine_code
from engine.registration.head import CANVAS, Head, fit_by_machine_code, fit_by_numpy, head_design
from engine.types import F64


def both(design: F64, moved: F64, trust: F64, heads: slice, finest: float = 0.1) -> tuple[Head, Head]:
    code = machine_code()
    assert code is not None
    found = fit_by_machine_code(design, moved, trust, heads, finest, fit=code.fit)
    return found, fit_by_numpy(design, moved, trust, heads, finest)


def field(count: int, seed: int) -> tuple[F64, F64, F64]:
    """A head that moves, a cheek that moves on its own, noise, and patches of all trusts, some of none."""
    rng = np.random.default_rng(seed)
    design = head_design(rng.uniform(10, CANVAS - 10, (count, 2)), rng.normal(0, 20, count))
    moved = design @ rng.normal(0, [0.01, 0.01, 2, 2, 0.03, 0.03]) + rng.normal(0, 0.1, (count, 2))
    moved[: count // 5] += rng.normal(0, 3, 2)
    return design, moved, np.maximum(rng.uniform(-0.2, 1, count), 0)


@pytest.mark.parametrize(("count", "heads"), [(70, slice(0, 28)), (70, slice(0, 70)), (71, slice(5, 20)), (9, slice(0, 9))])
@pytest.mark.parametrize("seed", range(5))
def test_twins_agree(count: int, heads: slice, seed: int) -> None:
    design, moved, trust = field(count, seed)
    found, wanted = both(design, moved, trust, heads)
    np.testing.assert_allclose(found.terms, wanted.terms, atol=1e-9)  # measured 2e-15
    assert found.residual == pytest.approx(wanted.residual, abs=1e-9)
    assert found.agree == pytest.approx(wanted.agree, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_twins_agree_where_there_is_too_little_to_tell(count: int) -> None:
    design, moved, _ = field(count, 1)
    for trust in (np.ones(count), np.zeros(count), np.full(count, 1e-12)):
        found, wanted = both(design, moved, trust, slice(0, count))
        np.testing.assert_allclose(found.terms, wanted.terms, atol=1e-6)  # measured 2e-9
        assert found.residual == pytest.approx(wanted.residual, abs=1e-6)


def test_one_place_for_all_patches_is_no_crash() -> None:
    design = np.repeat(head_design(np.full((1, 2), 40.0), np.zeros(1)), 30, axis=0)
    found, wanted = both(design, np.full((30, 2), 2.0), np.ones(30), slice(0, 30))
    np.testing.assert_allclose(design[0] @ found.terms, design[0] @ wanted.terms, atol=1e-6)


def test_what_is_no_number_stays_none() -> None:
    design, moved, trust = field(40, 2)
    moved[3] = np.nan
    found, wanted = both(design, moved, trust + 0.1, slice(0, 40))
    assert np.isnan(found.terms).all() and np.isnan(wanted.terms).all()


def test_any_layout_is_taken() -> None:
    design, moved, trust = field(60, 3)
    loose = np.asfortranarray(design), np.repeat(moved, 2, axis=1)[:, ::2], np.repeat(trust, 3)[::3]
    found, wanted = both(*loose, slice(0, 60))[0], both(design, moved, trust, slice(0, 60))[0]
    np.testing.assert_array_equal(found.terms, wanted.terms)
    narrow = both(design.astype(np.float32), moved.astype(np.float32), trust.astype(np.float32), slice(0, 60))[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(narrow.terms, wanted.terms, atol=1e-4)
