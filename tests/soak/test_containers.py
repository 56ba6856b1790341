from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ApexError
from tests.soak.containers import Engine, violations


def a_run(**changes: Any) -> dict[str, Any]:
    healthy = dict.fromkeys(("redis", "hub"), True)
    fleet = {"events_by_node": {"node-1": 7, "node-2": 6}, "expected": 7, "healthy": healthy, "password_shown": False}
    return {"analysis": {"events": 7, "events_are_equal": True}, "compose": {**fleet, **changes}}


def test_what_is_wrong_is_reported() -> None:
    assert violations(a_run()) == []
    wrong = {"events_by_node": {"node-1": 7, "node-2": 0}, "password_shown": True, "healthy": {"hub": False}}
    assert violations({**a_run(**wrong), "analysis": {"events": 0, "events_are_equal": False}}) == [
        "the clip has no events",
        "the events of the clip differ between container and checkout",
        "a list of processes shows Redis' password",
        "node-2 has 0 events, not 7",
        "hub is not healthy",
    ]


def test_the_engine_has_a_folder_of_its_own(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.prepare()
    assert f'graphroot = "{tmp_path}/storage"' in (tmp_path / "storage.conf").read_text()
    assert engine.run("sh", "-c", "echo $CONTAINERS_CONF").strip() == str(tmp_path / "containers.conf")
    with pytest.raises(ApexError, match=r"sh -c .* failed: why"):
        engine.run("sh", "-c", "echo why >&2; exit 1")
    assert engine.run("sh", "-c", "exit 1", quiet=True) == ""
