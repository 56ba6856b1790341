"""The NVIDIA GPU as the driver sees it: whether there is one, and which, asked without any CUDA package."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.errors import BackendError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name and compute capability."""

    name: str
    capability: tuple[int, int]

    @property
    def sm(self) -> str:
        """The capability as compilers write it, such as sm_90."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


def find(library: Any = None) -> Gpu:
    """The first GPU; library replaces the driver's. Raises BackendError where there is none, with the reason."""
    driver = _opened() if library is None else library
    _done(driver.cuInit(0), "cuInit")
    count = ctypes.c_int()
    _done(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if not count.value:
        raise BackendError("the NVIDIA driver shows no GPU")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _done(driver.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    name = ctypes.create_string_buffer(256)
    _done(driver.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    for found, attribute in ((major, _MAJOR), (minor, _MINOR)):
        _done(driver.cuDeviceGetAttribute(ctypes.byref(found), attribute, device), "cuDeviceGetAttribute")
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def refusal() -> str | None:
    """Why there is no GPU to compute on, None where there is one."""
    try:
        find()
    except BackendError as none:
        return str(none)
    return None


def _opened() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as cause:
        raise BackendError(f"no NVIDIA driver ({LIBRARY} is not found)") from cause


def _done(code: int, what: str) -> None:
    if code == 100:
        raise BackendError("the NVIDIA driver shows no GPU")
    if code:
        raise BackendError(f"the NVIDIA driver does not work ({what} gave error {code})")


def has_library(package: str, pattern: str) -> bool | None:
    """Whether an installed package has a file of that pattern, relative to its folder; None where it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return any(Path(spec.origin).parent.glob(pattern))
