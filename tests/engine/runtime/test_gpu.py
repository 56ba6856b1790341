from __future__ import annotations

from typing import Any

import pytest

from engine.errors import BackendError
from engine.runtime import gpu
from engine.runtime.gpu import Gpu


class Driver:
    """A driver that answers as libcuda's functions do, through pointers."""

    def __init__(self, count: int = 1, fails: str = "", code: int = 0) -> None:
        self.count, self.fails, self.code = count, fails, code

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.code if name == self.fails else self._answer(name, *args)

    def _answer(self, name: str, *args: Any) -> int:
        if name == "cuDeviceGetCount":
            args[0]._obj.value = self.count
        elif name == "cuDeviceGetName":
            args[0].value = b"NVIDIA Test"
        elif name == "cuDeviceGetAttribute":
            args[0]._obj.value = {75: 9, 76: 0}[args[1]]
        return 0


def test_name_and_capability_of_the_first_gpu() -> None:
    found = gpu.find(Driver())
    assert found == Gpu("NVIDIA Test", (9, 0)) and found.sm == "sm_90"


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        (Driver(count=0), "shows no GPU"),
        (Driver(fails="cuInit", code=100), "shows no GPU"),
        (Driver(fails="cuInit", code=999), r"does not work \(cuInit gave error 999\)"),
        (Driver(fails="cuDeviceGetName", code=201), "cuDeviceGetName gave error 201"),
    ],
)
def test_a_driver_that_does_not_answer_is_told(driver: Driver, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        gpu.find(driver)


def test_a_machine_without_a_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libno_such_driver.so")
    assert gpu.refusal() == "no NVIDIA driver (libno_such_driver.so is not found)"


def test_this_machine_is_asked_for_real() -> None:
    reason = gpu.refusal()
    assert reason is None or reason.startswith(("no NVIDIA driver", "the NVIDIA driver"))
