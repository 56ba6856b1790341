from __future__ import annotations

import gc
import subprocess
import sys

import cv2
import psutil
import pytest

from stream.threads import loaded_for_good, numba_alone, opencv_on_one_thread


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


ALONE = """
import sys
import numpy as np
from stream.threads import numba_alone
numba_alone()
from engine.kernels import refusal
from engine.ops.tvl1 import tvl1
fixed = np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)
assert refusal() is None and np.abs(tvl1(fixed, np.roll(fixed, 1, axis=1), backend="cpu")).max() > 0
assert "numba.np.arraymath" in sys.modules and "scipy.linalg" not in sys.modules
import scipy.linalg
numba_alone()  # too late, and no harm
assert sys.modules["scipy.linalg"] is scipy.linalg
"""


def test_the_machine_code_needs_no_scipy_and_others_can_have_it() -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True)


class NoNumba:
    """A machine on which numba cannot be loaded."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "numba":
            raise OSError("libLLVM.so cannot be opened")


def test_without_numba_all_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("numba", "scipy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoNumba(), *sys.meta_path])
    numba_alone()
    assert not {"numba", "scipy"} & sys.modules.keys()
