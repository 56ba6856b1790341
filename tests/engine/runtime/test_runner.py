from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ArrayError, BackendError, WeightsError
from engine.runtime.ort import OrtRunner
from engine.runtime.runner import FallbackRunner, Runner, checked
from engine.types import F32
from engine.weights import default_weights

SHAPE = (3, 28, 28)


def test_fitting_maps_pass_unchanged_and_contiguous() -> None:
    maps = np.random.default_rng(0).random((2, 3, 28, 28), np.float32)[..., ::-1]
    passed = checked(maps, SHAPE)
    assert np.array_equal(passed, maps) and passed.flags.c_contiguous


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        (np.zeros((1, 3, 28, 28)), "float32 array, not float64"),
        ([[0.0]], "float32 array, not list"),
        (np.zeros((3, 28, 28), np.float32), r"\[B, 3, 28, 28\], not \[3, 28, 28\]"),
        (np.zeros((1, 3, 14, 28), np.float32), r"not \[1, 3, 14, 28\]"),
        (np.full((1, 3, 28, 28), np.nan, np.float32), "not finite"),
        (np.full((1, 3, 28, 28), np.inf, np.float32), "not finite"),
    ],
)
def test_anything_else_is_refused(maps: Any, says: str) -> None:
    with pytest.raises(ArrayError, match=says):
        checked(maps, SHAPE)


class Broken(Runner):
    """Its answers are no numbers."""

    classes, input_shape = ("one", "other"), SHAPE

    def _run(self, maps: F32) -> F32:
        return np.full((len(maps), 2), np.nan, np.float32)


def test_answers_that_are_no_numbers_are_a_failure_of_the_backend() -> None:
    with pytest.raises(BackendError, match="answers are not finite"):
        Broken()(np.zeros((1, *SHAPE), np.float32))


def test_no_maps_have_no_answers() -> None:
    assert Broken()(np.zeros((0, *SHAPE), np.float32)).shape == (0, 2)


MAPS = np.random.default_rng(0).random((3, 3, 28, 28), np.float32)


class Failing(OrtRunner):
    """Answers some calls, then fails at every one."""

    def __init__(self, name: str, answers: int = 0) -> None:
        super().__init__(default_weights())
        self.backend, self.device, self.left, self.closed = name, f"a {name}", answers, False

    def __call__(self, maps: F32) -> F32:
        if self.left == 0:
            raise BackendError(f"{self.backend} is out of memory")
        self.left -= 1
        return super().__call__(maps)

    def close(self) -> None:
        self.closed = True


def cannot(reason: str) -> Callable[[], OrtRunner]:
    def opener() -> OrtRunner:
        raise BackendError(reason)

    return opener


def test_the_first_that_opens_runs_and_the_others_are_reported() -> None:
    runner = FallbackRunner([("tensorrt", cannot("no GPU")), ("ort", lambda: OrtRunner(default_weights()))])
    assert (runner.backend, runner.refusals, list(runner.notes)) == ("ort", {"tensorrt": "no GPU"}, [])
    assert (runner.classes, runner.input_shape) == (("negative", "positive", "surprise"), (3, 28, 28))


def test_a_call_that_fails_is_answered_by_the_next_that_opens(caplog: pytest.LogCaptureFixture) -> None:
    first = Failing("tensorrt", answers=1)
    chain = [("tensorrt", lambda: first), ("cuda", cannot("no room")), ("ort", lambda: OrtRunner(default_weights()))]
    runner = FallbackRunner(chain)
    before, after = runner(MAPS), runner(MAPS)
    assert np.array_equal(before, after) and runner.backend == "ort" and first.closed
    assert runner.refusals == {"tensorrt": "tensorrt is out of memory", "cuda": "no room"}
    note = "the network no longer runs on a tensorrt (tensorrt is out of memory); ort on CPU, CPUExecutionProvider goes on"
    assert list(runner.notes) == [note] and caplog.messages == [note]


def test_closing_closes_the_backend_that_runs() -> None:
    first, second = Failing("tensorrt", answers=1), Failing("cuda", answers=1)
    runner = FallbackRunner([("tensorrt", lambda: first), ("cuda", lambda: second)])
    runner(MAPS)
    assert not first.closed
    runner(MAPS)
    assert first.closed and not second.closed
    runner.close()
    assert second.closed


def test_one_failure_after_the_other_goes_down_the_chain() -> None:
    last = Failing("ort", answers=1)
    runner = FallbackRunner(
        [("tensorrt", lambda: Failing("tensorrt")), ("cuda", lambda: Failing("cuda")), ("ort", lambda: last)]
    )
    assert runner(MAPS).shape == (3, 3) and len(runner.notes) == 2
    with pytest.raises(BackendError, match=r"tensorrt cannot run here.*cuda cannot run here.*ort is out of memory"):
        runner(MAPS)


def test_wrong_maps_cost_no_backend() -> None:
    runner = FallbackRunner([("ort", lambda: OrtRunner(default_weights())), ("eager", cannot("no PyTorch"))])
    with pytest.raises(ArrayError):
        runner(MAPS[0])
    assert runner.backend == "ort" and runner.refusals == {}


def test_where_nothing_opens_all_reasons_are_given(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"tensorrt cannot run here: no GPU; .*ort cannot run here: no memory"):
        FallbackRunner([("tensorrt", cannot("no GPU")), ("ort", cannot("no memory"))])


def test_where_none_is_left_nothing_that_is_closed_is_asked_again() -> None:
    only = Failing("tensorrt")
    runner = FallbackRunner([("tensorrt", lambda: only), ("ort", cannot("no memory"))])
    for _ in range(2):
        with pytest.raises(BackendError, match=r"tensorrt is out of memory; .*ort cannot run here: no memory"):
            runner(MAPS)
        assert only.closed
        only.left = 1  # it would answer, from memory that is given back
    assert only.left == 1 and runner.backend == "tensorrt"


def test_a_file_that_is_gone_is_a_reason_and_at_the_start_an_error() -> None:
    def gone() -> OrtRunner:
        raise WeightsError("there is no network file x.onnx")

    runner = FallbackRunner([("tensorrt", lambda: Failing("tensorrt")), ("ort", gone)])
    with pytest.raises(BackendError, match=r"ort cannot run here: there is no network file x\.onnx"):
        runner(MAPS)
    with pytest.raises(WeightsError):
        FallbackRunner([("ort", gone), ("eager", lambda: OrtRunner(default_weights()))])
