"""On what a benchmark ran: processor, cores, load, versions, and the GPU or why there is none."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = (
    "apexstream",
    "numpy",
    "opencv-contrib-python",
    "ai-edge-litert",
    "mediapipe",
    "av",
    "onnxruntime",
    "torch",
    "triton",
    "numba",
)


def describe() -> dict[str, Any]:
    """The machine in words and numbers (cores: those that this process may use); nothing that names it or its user."""
    import psutil

    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "load": load(),
    }


def load() -> float | None:
    """Programs that want to run, the mean of the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name, as the system has it."""
    facts = Path("/proc/cpuinfo")
    for line in facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def gpu() -> tuple[str | None, str]:
    """The GPU's name and "", or None and the reason why none is measured."""
    if find_spec("torch") is None:
        return None, "PyTorch is not installed"
    import torch

    if not torch.cuda.is_available():
        return None, "PyTorch sees no CUDA device"
    return torch.cuda.get_device_name(0), ""


def versions() -> dict[str, str]:
    """Of the packages that matter, those that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
