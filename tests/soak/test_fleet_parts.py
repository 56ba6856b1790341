from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from engine.errors import OutputError
from tests.soak import fleet_parts
from tests.soak.fleet_parts import Client, Fleet


def test_a_process_is_started_killed_and_gone(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = Fleet(tmp_path, nodes=1, rate=20.0)
        try:
            await fleet.start("redis")
            await fleet.start("hub")
            assert {name for name, _ in fleet.cpu_s()} == {"redis", "hub"}
            await fleet.kill("hub")
            assert {name for name, _ in fleet.cpu_s()} == {"redis"}
        finally:
            await fleet.close()

    asyncio.run(main())


def test_what_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_parts, "PATIENCE_S", 0.05)
    began = time.monotonic()
    with pytest.raises(OutputError, match="waited 0 s for events; 0 events came"):
        asyncio.run(Client().until(lambda: False, "events"))
    assert time.monotonic() - began < 5
