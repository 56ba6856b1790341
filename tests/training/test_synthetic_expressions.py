from __future__ import annotations

import numpy as np
import pytest

from engine.spotting.features import HZ, MESH_FEATURES, REGIONS
from engine.types import F32
from training.judge import Known
from training.synthetic_expressions import (
    MACRO_PX,
    MICRO_LENGTH_S,
    add_expressions,
    cut_expressions,
    hold_expression,
    time_course,
)
from training.tapes import Tape

STILL: F32 = np.zeros((900, 2 * len(REGIONS)), np.float32)
MESH: F32 = np.zeros((900, len(MESH_FEATURES)), np.float32)


@pytest.mark.parametrize("kind", ["speech", "quiet"])
def test_added_expressions_lie_where_they_are_known(kind: str) -> None:
    rng = np.random.default_rng(4)
    tape = add_expressions(Tape("a", "p", kind, STILL, MESH), 1.0, rng)
    assert len(tape.known) > 5 and not STILL.any()
    inside = np.zeros(len(STILL), bool)
    for one in tape.known:
        first, last = int(one.onset), int(one.offset)
        part = np.abs(tape.displacement[first : last + 1])
        assert 0.2 < part.max() < 3 * MACRO_PX[1]
        assert one.micro == ((one.offset - one.onset) / HZ <= 0.5 + 1e-6)
        inside[first : last + 1] = True
    assert not tape.displacement[~inside].any()
    assert add_expressions(Tape("a", "p", kind, STILL), 0.0, rng).known == ()


def test_a_time_course_rises_and_falls() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        micro = time_course(True, rng)
        assert micro[0] == 0 and micro[-1] < 0.05 and 0.6 < micro.max() <= 1
        assert MICRO_LENGTH_S[0] <= (len(micro) - 1) / HZ <= MICRO_LENGTH_S[1] + 1 / HZ + 1e-9
        assert time_course(False, rng)[-1] < 0.05


def test_real_expressions_are_cut_out_without_drift_and_added() -> None:
    place = STILL.copy()
    place[100:120, 3] = 5 * np.sin(np.linspace(0, np.pi, 20))
    place[:, 7] = np.linspace(0, 30, 900)  # a drift
    source = Tape("a", "p", "flow", place, None, (Known(100, 119, True), Known(890, 899, True)))
    (motion,) = cut_expressions([source])
    assert motion.shape == (25, 20) and motion[:, 3].max() == pytest.approx(5, abs=0.1)
    assert np.abs(motion[:, 7]).max() < 1e-3 and not motion[[0, -1]].round(3).any()
    tape = add_expressions(Tape("b", "q", "quiet", STILL), 1.0, np.random.default_rng(0), [motion])
    assert any(round(one.offset - one.onset) == 24 for one in tape.known)


def test_a_held_expression_lasts_to_the_end_of_a_short_clip() -> None:
    rng = np.random.default_rng(2)
    clips = [hold_expression(Tape("a", "p", "quiet", STILL, MESH), rng) for _ in range(40)]
    assert all(HZ - 1 <= len(one.displacement) == len(one.mesh) <= 4 * HZ for one in clips if one.mesh is not None)
    held = [one for one in clips if one.known]
    assert 10 < len(held) < 40
    for one in held:
        (known,) = one.known
        size = np.abs(one.displacement).max(axis=1)
        assert known.offset == len(size) - 1 and not size[: int(known.onset) + 1].any() and size[-1] == size.max() > 0.2
