from __future__ import annotations

import shutil

import pytest

from apexstream.bench.timing import WARM_UP, fastest_of_each, gpu_median_ms, in_turns, medians_of_each, timed


def test_a_call_is_timed_by_the_clock_given() -> None:
    ticks = iter([10.0, 12.5])
    assert timed(lambda: "done", lambda: next(ticks)) == (2.5, "done")


def test_two_calls_are_timed_in_turns() -> None:
    calls: list[str] = []
    both = (lambda: calls.append("a"), lambda: calls.append("b"))
    assert all(seconds >= 0 for seconds in fastest_of_each(*both, 3))
    assert calls == list("ababab")
    assert all(seconds >= 0 for seconds in medians_of_each(*both, 2))
    assert calls[6:] == list("ab" * (WARM_UP + 2))


def test_calls_take_turns() -> None:
    call = in_turns([lambda: "a", lambda: "b", lambda: "c"])
    assert "".join(call() for _ in range(7)) == "abcabca"


@pytest.mark.gpu
def test_the_gpus_clock_counts() -> None:
    torch = pytest.importorskip("torch")
    if shutil.which("nvidia-smi") is None or not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    matrix = torch.ones(2048, 2048, device="cuda")
    assert gpu_median_ms(lambda: matrix @ matrix, 5) > 0
