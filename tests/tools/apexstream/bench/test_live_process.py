from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import apexstream
import engine
import stream
from apexstream.bench.live_process import LiveProcess, import_environment
from tests.live import PATIENCE_S

PATTERN = "lavfi:testsrc=size=160x120:rate=25"


def test_a_process_imports_the_packages_of_this_one_wherever_it_starts(tmp_path: Path) -> None:
    for package in ("apexstream", "engine", "stream"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    command = [
        sys.executable,
        "-c",
        "import apexstream, engine, stream; print(apexstream.__file__, engine.__file__, stream.__file__)",
    ]
    found = subprocess.run(command, cwd=tmp_path, env=import_environment(), capture_output=True, text=True, check=True).stdout
    assert found.split() == [apexstream.__file__, engine.__file__, stream.__file__]


def test_it_serves_until_it_is_ended() -> None:
    async def first_types(service: LiveProcess) -> list[str]:
        seen: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            async for message in service.messages("pattern"):
                seen.append(message["type"])
                assert message["received"] > 0
                if {"hello", "signal", "preview"} <= set(seen):
                    return seen
        return seen

    with LiveProcess([PATTERN]) as service:
        assert asyncio.run(first_types(service))[0] == "hello"
        assert "pattern: live" in service.log()
        [pid] = service.pids
        assert service.usage().memory_mib > 50
        assert service.end() < PATIENCE_S
    assert not psutil.pid_exists(pid)


def test_the_processes_of_its_sources_are_counted_and_end_with_it() -> None:
    async def all_live(service: LiveProcess) -> None:
        async with asyncio.timeout(PATIENCE_S):
            live: set[str] = set()
            async for message in service.messages():
                if message["type"] == "status" and message["state"] == "live":
                    live.add(message["stream"])
                if len(live) == 2:
                    return

    with LiveProcess([PATTERN, PATTERN], "--processes", "2") as service:
        asyncio.run(all_live(service))
        processes, used = [psutil.Process(pid) for pid in service.pids], service.usage()
        own = processes[0]
        assert len(processes) == 3
        assert used.memory_mib > own.memory_info().rss / 2**20 + 100, "each of the others analyses"
        assert used.threads > own.num_threads() + 4 and used.handles > own.num_fds() and used.cpu_s > 0
    _, left = psutil.wait_procs(processes, PATIENCE_S)  # one that had to be killed may be a moment later
    assert not left


def test_one_that_does_not_start_raises_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="is no file"):
        LiveProcess([str(tmp_path / "none.mp4")])
