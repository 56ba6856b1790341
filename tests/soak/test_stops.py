from __future__ import annotations

import pytest
from typer.testing import CliRunner

from stream.shutdown import EXIT_INTERRUPTED
from tests.soak import stops
from tests.soak.stops import GIVE_UP_S, PATTERN, State, app, soak, states, states_record

NAMES = ("hang-up", "silent-rtsp", "huge-picture", "ctrl-c-twice", "term-int-int", "starting", "processes")


def test_it_ends_in_order_from_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "LIMIT_S", GIVE_UP_S)  # other tests may need the machine
    with states(sizes=((9000, 300), (2000, 1000))) as known:
        assert tuple(known) == NAMES
        found = soak(known, times=1)
    assert {name: problem for name, ends in found.items() for _, _, problem in ends} == dict.fromkeys(NAMES, "")
    for name, [(_, code, _)] in found.items():
        assert code in ({0, EXIT_INTERRUPTED} if "c-twice" in name or "int-int" in name else {0})


def test_an_end_that_violates_a_limit_is_a_problem() -> None:
    impossible = State((PATTERN, "--nonsense"), (), live=0)
    record = states_record(soak({"nonsense": impossible}, times=1))["nonsense"]
    assert "it did not come to that state" in record["problems"][0] and record["exit_codes"] == {"2": 1}


def test_a_state_that_does_not_exist_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["--state", "asleep"])
    assert result.exit_code == 2
    assert "there is no state asleep; there are hang-up" in result.stderr
