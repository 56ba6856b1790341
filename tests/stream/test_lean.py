from __future__ import annotations

import subprocess
import sys

import pytest

from stream.lean import load_less

LESS = """
import sys
import numpy as np
from stream.lean import load_less
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


def test_the_pipeline_runs_without_what_is_left_out_and_others_can_have_it() -> None:
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
