from __future__ import annotations

from typing import Any

import pytest

from tests.soak.fleet_figures import Kill, differences, outages, undisturbed, violations
from tests.soak.fleet_parts import Received

KILLS = {"redis": 1, "node": 1, "hub": 1}
SOUND: dict[str, Any] = {
    "events_stored": 100,
    "events_received": 100,
    "lost": 0,
    "twice": 0,
    "out_of_order": 0,
    "others_than_stored": 0,
    "kills": KILLS,
    "delay_ms_while_all_is_up": {"count": 90, "p50": 10.0, "p95": 30.0, "worst": 60.0},
    "loss_of_a_node_shown_after_s": 3.7,
}


def received(node: str, seq: int, decided: float = 0.0, late: float = 0.01) -> Received:
    return Received(node, seq, f"{node}-{seq}", decided, decided + late)


def test_a_sound_run_has_no_violations() -> None:
    assert violations(SOUND, KILLS) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"lost": 1}, "1 events are missing"),
        ({"twice": 2}, "2 events came twice"),
        ({"out_of_order": 3}, "3 events came out of order"),
        ({"others_than_stored": 4}, "4 events are others"),
        ({"events_received": 99}, "99 of 100 events came"),
        ({"delay_ms_while_all_is_up": {"p95": 100.0}}, "took up to 100 ms"),
        ({"delay_ms_while_all_is_up": {"count": 0}}, "took up to inf ms"),
        ({"kills": {"redis": 1, "node": 1, "hub": 0}}, "the kills were"),
        ({"loss_of_a_node_shown_after_s": 5.0}, "the loss of a node was shown after 5.0 s"),
    ],
)
def test_each_violation_is_reported(changed: dict[str, Any], expected: str) -> None:
    (found,) = violations(SOUND | changed, KILLS)
    assert expected in found


def test_what_is_wrong_with_the_events_is_counted() -> None:
    stored = {"a": ["a-1", "a-2", "a-3"], "b": ["b-1", "another"]}
    sound = [received("a", 1), received("b", 1), received("a", 2), received("a", 3)]
    assert differences(sound, stored) == {"lost": 1, "twice": 0, "out_of_order": 0, "others_than_stored": 0}
    wrong = [received("a", 2), received("a", 1), received("a", 1), received("b", 2)]
    assert differences(wrong, stored) == {"lost": 2, "twice": 1, "out_of_order": 2, "others_than_stored": 1}


def test_events_on_their_way_while_something_was_down_do_not_count() -> None:
    events = [received(node, seq, seq, 0.5) for seq in range(10) for node in "ab"]
    ((begin, end),) = outages([Kill("hub", 3.2, 5.1)], events, "ab")
    assert (begin, end) == (3.2, 6.5), "every node's first event after the restart came then"
    assert [event.seq for event in undisturbed(events, [(begin, end)])] == [0, 0, 1, 1, 2, 2, 7, 7, 8, 8, 9, 9]
    assert outages([Kill("hub", 3.2, 9.5)], events, "ab") == [(3.2, float("inf"))]
