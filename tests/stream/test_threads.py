from __future__ import annotations

import gc
import sys

import cv2
import psutil
import pytest

from stream.threads import loaded_for_good, opencv_on_one_thread


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
