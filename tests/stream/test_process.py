from __future__ import annotations

import asyncio
import gc
import sys
import threading

import cv2
import psutil
import pytest

from stream import process as threads
from stream.process import SWEPT, Sweep, loaded_for_good, opencv_on_one_thread


def test_opencv_has_one_thread_inside_and_its_own_number_again_afterwards() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        first, second = opencv_on_one_thread(), opencv_on_one_thread()
        with first:
            with second:
                assert cv2.getNumThreads() == 1
            assert cv2.getNumThreads() == 1, "the outer block still runs"
        assert cv2.getNumThreads() == 2
        with pytest.raises(ZeroDivisionError), opencv_on_one_thread():
            _ = 1 / 0
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_what_is_loaded_is_not_collected_again() -> None:
    try:
        loaded_for_good()
        assert gc.get_freeze_count() > 1000
        assert gc.isenabled(), "what comes later is collected as before"
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give memory back in their own way")
def test_memory_that_only_loading_needed_goes_back_to_the_machine() -> None:
    process, blocks = psutil.Process(), [bytes(16 << 10) for _ in range(4096)]
    del blocks[:-1]  # the last one lies above the hole of 64 MiB and holds it open
    before = process.memory_info().rss
    try:
        loaded_for_good()
    finally:
        gc.unfreeze()
    assert before - process.memory_info().rss > 48 << 20


@pytest.mark.parametrize("notes", [SWEPT, 1])
def test_what_connections_leave_behind_is_freed_at_their_number_or_after_a_while(
    monkeypatch: pytest.MonkeyPatch, notes: int
) -> None:
    monkeypatch.setattr(threads, "SWEEP_S", 600.0 if notes > 1 else 0.01)
    acted: list[str] = []

    async def test() -> None:
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def act() -> None:
            acted.append(threading.current_thread().name)
            loop.call_soon_threadsafe(done.set)

        sweep = Sweep(act)
        for _ in range(notes):
            sweep.note()
        async with asyncio.timeout(20):
            await done.wait()

    asyncio.run(test())
    assert len(acted) == 1
    assert acted[0] != threading.main_thread().name


@pytest.mark.parametrize("notes", [1, SWEPT])
def test_a_connection_that_closes_after_the_loop_has_ended_is_no_error(notes: int) -> None:
    sweep = Sweep(lambda: pytest.fail("nothing is to be freed any more"))
    for _ in range(notes):
        sweep.note()
