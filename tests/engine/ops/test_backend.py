"""Who computes an operator."""

from __future__ import annotations

import pytest

from engine.errors import BackendError
from engine.ops.backend import choose


def test_auto_takes_the_gpu_only_where_there_is_one() -> None:
    assert choose("auto", None) == "gpu"
    assert choose("auto", "no driver") == "cpu"


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("refusal", [None, "no driver"])
def test_a_named_backend_runs_whatever_the_gpu_says(name: str, refusal: str | None) -> None:
    assert choose(name, refusal) == name


def test_a_gpu_that_can_run_is_taken() -> None:
    assert choose("gpu", None) == "gpu"


def test_a_gpu_that_cannot_run_says_why_and_what_to_do() -> None:
    with pytest.raises(BackendError, match=r"no driver.*\"cpu\""):
        choose("gpu", "no driver")


@pytest.mark.parametrize("name", ["cuda", "", "CPU"])
def test_an_unknown_backend_names_the_known_ones(name: str) -> None:
    with pytest.raises(BackendError, match="auto, reference, cpu, gpu"):
        choose(name, None)
