from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import cv2
import psutil
import pytest

from stream import process as process_module
from stream.process import SWEEP_COUNT, Sweep, core_count, freeze_loaded, load_less, opencv_on_one_thread


def test_cores_are_those_the_process_may_use() -> None:
    script = "import os; from stream.process import core_count; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    ended = subprocess.run([sys.executable, "-c", script + "print(core_count())"], capture_output=True, text=True, check=True)
    assert (int(ended.stdout), core_count() >= 1) == (1, True)


def test_opencv_has_one_thread_inside_and_as_many_as_before_afterwards() -> None:
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


def test_loaded_objects_are_not_collected_again() -> None:
    try:
        freeze_loaded()
        assert gc.get_freeze_count() > 1000
        assert gc.isenabled(), "later objects are collected as before"
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries return memory in their own way")
def test_memory_that_only_loading_needed_is_returned() -> None:
    process, blocks = psutil.Process(), [bytes(16 << 10) for _ in range(4096)]
    del blocks[:-1]  # the last one lies above the hole of 64 MiB and holds it open
    before = process.memory_info().rss
    try:
        freeze_loaded()
    finally:
        gc.unfreeze()
    assert before - process.memory_info().rss > 48 << 20


@pytest.mark.parametrize("count", [SWEEP_COUNT, 1])
def test_garbage_of_connections_is_collected_by_their_number_or_after_a_while(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(process_module, "SWEEP_S", 600.0 if count > 1 else 0.01)
    collected: list[str] = []

    async def test() -> None:
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def collect() -> None:
            collected.append(threading.current_thread().name)
            loop.call_soon_threadsafe(done.set)

        sweep = Sweep(collect)
        for _ in range(count):
            sweep.note()
        async with asyncio.timeout(20):
            await done.wait()

    asyncio.run(test())
    assert len(collected) == 1
    assert collected[0] != threading.main_thread().name


@pytest.mark.parametrize("count", [1, SWEEP_COUNT])
def test_a_connection_that_closes_after_the_loop_has_ended_is_no_error(count: int) -> None:
    sweep = Sweep(lambda: pytest.fail("nothing is collected any more"))
    for _ in range(count):
        sweep.note()


LESS = """
import sys
import numpy as np
from stream.process import load_less
load_less()
from engine import Pipeline
from engine.ops.tvl1 import tvl1
from engine.types import Frame
fixed = np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)
assert np.abs(tvl1(fixed, np.roll(fixed, 1, axis=1), backend="cpu")).max() > 0
pipeline = Pipeline.from_config()
pipeline.feed(Frame(0, 0.0, np.zeros((64, 64), np.uint8), "grey"))
pipeline.close()
loaded = sys.modules.keys()
assert "numba.np.arraymath" in loaded
assert not {"scipy.linalg", "mediapipe", "matplotlib"} & loaded
import scipy.linalg
load_less()  # too late, and no harm
assert sys.modules["scipy.linalg"] is scipy.linalg
"""


def test_the_pipeline_runs_without_what_is_not_loaded_and_it_can_be_loaded_later() -> None:
    done = subprocess.run([sys.executable, "-c", LESS], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class NoNumba:
    """A machine on which numba cannot be loaded."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "numba":
            raise OSError("libLLVM.so cannot be opened")


def test_without_numba_all_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("numba", "scipy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoNumba(), *sys.meta_path])
    load_less()
    assert not {"numba", "scipy"} & sys.modules.keys()
