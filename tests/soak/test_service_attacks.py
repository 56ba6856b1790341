from __future__ import annotations

import random
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.events.database import FILE
from stream.events.store import Store
from tests.soak.attack_target import Target
from tests.soak.attacks import fill
from tests.soak.service_attacks import damage_row, refill, stop_process

FILLER = 1200


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A store of made-up events and a copy of it; no service."""
    for name in ("data", "filler", "taken"):
        (tmp_path / name).mkdir()
    fill(tmp_path, FILLER)
    unused, service = cast(Any, None), cast(Any, SimpleNamespace(pids=[1]))
    tls = ssl.create_default_context()
    return Target(0, tls, "", tmp_path / "data", tmp_path / "taken", unused, (), service, FILLER, ())


def test_a_new_store_is_filled_with_the_made_up_events(target: Target) -> None:
    for path in target.folder.iterdir():
        path.unlink()
    Store(target.folder).close()
    refill(target)
    with closing(sqlite3.connect(target.folder / FILE)) as db:
        assert db.execute("SELECT count(*), max(seq) FROM events").fetchone() == (FILLER, FILLER)


def test_without_events_or_processes_there_is_nothing_to_attack(target: Target) -> None:
    chance = random.Random(0)
    assert damage_row(target, chance).facts == {"rows": 0}
    assert stop_process(target, chance).facts == {"processes": 0}
