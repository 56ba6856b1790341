from __future__ import annotations

import numpy as np
import pytest

from apexstream.clips.actions import GRID_STEP, Grid, field, grid_over, lid_drop, place
from apexstream.clips.portrait import Portrait, portrait
from apexstream.clips.spec import LABEL_OF, MAX_PX, PHOTOS, Action, Renderer
from engine.types import F32

FAMILIES: tuple[Renderer, ...] = ("warp-a", "warp-b")
CASES = [(action, family) for action in LABEL_OF for family in FAMILIES]


def at(face: Portrait, grid: Grid, f: F32, point: str) -> tuple[float, float]:
    """(outward, up) of a field at a named point."""
    j, i = np.rint((place(face, point) - grid.origin) / GRID_STEP).astype(int)
    side = -1 if point.split(":", maxsplit=1)[0].endswith("_r") else 1
    return side * float(f[i, j] @ face.across), -float(f[i, j] @ face.down)


@pytest.mark.parametrize(("action", "family"), CASES)
def test_the_largest_displacement_is_one_and_the_outline_rests(action: Action, family: Renderer) -> None:
    face = portrait("astronaut", 45.0)
    grid = grid_over(face)
    f = field(face, grid, action, family, np.random.default_rng(1))
    size = np.linalg.norm(f, axis=-1)
    assert size.max() == pytest.approx(1, abs=1e-5)
    assert max(size[0].max(), size[-1].max(), size[:, 0].max(), size[:, -1].max()) == 0
    assert np.hypot(*at(face, grid, f, "bridge")) < 0.25


@pytest.mark.parametrize("photo", PHOTOS)
def test_no_warp_folds_up_to_the_largest_amplitude(photo: str) -> None:
    face = portrait(photo, 45.0)
    grid = grid_over(face)
    for seed, (action, family) in enumerate(CASES):
        f = field(face, grid, action, family, np.random.default_rng(seed)) * MAX_PX * face.crop_px / GRID_STEP
        dy, dx = np.gradient(f, axis=0), np.gradient(f, axis=1)
        jacobian = (1 - dx[..., 0]) * (1 - dy[..., 1]) - dx[..., 1] * dy[..., 0]
        assert jacobian.min() > 0.02, (action, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_actions_move_what_their_units_move(family: Renderer) -> None:
    face = portrait("hopper", 45.0)
    grid = grid_over(face)

    def move(action: Action, point: str) -> tuple[float, float]:
        fields = [field(face, grid, action, family, np.random.default_rng(s)) for s in range(5)]
        return tuple(np.mean([at(face, grid, f, point) for f in fields], axis=0))

    for side in "rl":
        assert move("brow_raise", f"brow_{side}:2")[1] > 0.6
        assert abs(move("brow_raise", f"mouth_{side}")[1]) < 0.05
        outward, up = move("brow_lower", f"brow_{side}:4")
        assert outward < -0.2
        assert up < -0.4
        outward, up = move("smile", f"mouth_{side}")
        assert outward > 0.4
        assert up > 0.4
        assert move("smile", f"cheek_{side}")[1] > 0.2
        assert move("nose_wrinkle", f"nose_{side}")[1] > 0.6
        assert move("nose_wrinkle", f"brow_{side}:4")[1] < -0.1
        assert move("lip_depress", f"mouth_{side}")[1] < -0.6
    assert move("lip_depress", "chin")[1] > 0.2


def test_events_of_one_action_differ_and_are_slightly_asymmetric() -> None:
    face = portrait("hopper", 45.0)
    grid = grid_over(face)
    one, other = (field(face, grid, "smile", "warp-a", np.random.default_rng(s)) for s in (1, 2))
    assert np.abs(one - other).max() > 0.05
    ups = [at(face, grid, one, f"mouth_{s}")[1] for s in "rl"]
    assert ups[0] != pytest.approx(ups[1], abs=0.005)


def test_the_two_families_are_different_warps() -> None:
    face = portrait("hopper", 45.0)
    grid = grid_over(face)
    a, b = (field(face, grid, "smile", family, np.random.default_rng(1)) for family in FAMILIES)
    assert np.linalg.norm(a - b, axis=-1).max() > 0.2


def test_a_blink_moves_the_brows_a_little() -> None:
    face = portrait("astronaut", 45.0)
    grid = grid_over(face)
    f = lid_drop(face, grid)
    for side in "rl":
        assert -0.45 < at(face, grid, f, f"brow_{side}:2")[1] < -0.1
        assert abs(at(face, grid, f, f"mouth_{side}")[1]) < 0.01
