from __future__ import annotations

import numpy as np

from engine.spotting.features import FLOW_WIDTH, MESH_FEATURES, REGIONS
from engine.types import F32
from training.judge import WINDOW, Known
from training.tapes import Tape
from training.windows import FlowWindows, LiveWindows, MixedWindows

STILL: F32 = np.zeros((900, 2 * len(REGIONS)), np.float32)
MESH: F32 = np.zeros((900, len(MESH_FEATURES)), np.float32)


def test_windows_hold_known_expressions() -> None:
    long = Tape("a", "p", "flow", STILL, None, (Known(500, 530, False),))
    short = Tape("b", "q", "quiet", STILL[:200], MESH[:200])
    rng = np.random.default_rng(0)
    flow = [FlowWindows([long, short])(rng) for _ in range(40)]
    assert {len(one.rows) for one in flow} == {WINDOW, 200}
    assert sum(bool(one.answers[:, 0].any()) for one in flow) > 15
    live = [LiveWindows([short], [], quiet=3.0)(rng) for _ in range(40)]
    assert all(30 <= len(one.rows) <= WINDOW for one in live) and any(one.answers[:, 0].any() for one in live)
    assert 0 < sum(not one.rows[:, FLOW_WIDTH:].any() for one in live) < 20
    mixed = [MixedWindows([(FlowWindows([long]), 1.0), (LiveWindows([short], []), 1.0)])(rng) for _ in range(30)]
    assert {len(one.rows) for one in mixed} > {WINDOW}
