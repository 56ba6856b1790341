"""Running a network: one contract (`Runner`), several backends, the choice made once and told.

Order of preference of "auto": "ort" (ONNX Runtime, always installed), "eager" (PyTorch).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from engine.errors import BackendError, WeightsError
from engine.runtime.contract import Runner

BackendName = Literal["auto", "ort", "eager"]

NEEDS = {"ort": ("onnxruntime",), "eager": ("torch", "onnx")}
"""Backends in order of preference, each with the modules it needs."""

ADVICE = {"ort": "install apexstream again", "eager": "install apexstream[train]"}


def refusal(backend: str) -> str | None:
    """Why a backend cannot run here, in words, or None if it can. Imports nothing heavy."""
    absent = [name for name in NEEDS[backend] if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; {ADVICE[backend]}" if absent else None


def report() -> dict[str, str | None]:
    """Each backend, best first, with the reason why it cannot run here, or None."""
    return {name: refusal(name) for name in NEEDS}


def load(weights: str | Path, *, backend: BackendName = "auto") -> Runner:
    """Load an exported network (ONNX file) on a backend: maps [B, 3, H, W] float32 in 0..1 -> probabilities [B, K] float32.

    "auto" takes the first backend that can run here; the runner tells which (`backend`, `device`) and why others before it
    were not taken (`refusals`). Raises BackendError for a backend that does not exist or cannot run here, WeightsError for a
    file that is missing, damaged or not exported by this project.
    """
    if backend != "auto" and backend not in NEEDS:
        raise BackendError(f"no backend is called {backend!r}; there are auto, {', '.join(NEEDS)}")
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"there is no network file {path}")
    refusals: dict[str, str] = {}
    for name in NEEDS if backend == "auto" else (backend,):
        reason = refusal(name)
        if reason is None:
            return _open(name, path, refusals)
        refusals[name] = reason
    raise BackendError("; ".join(f"backend {name} cannot run here: {why}" for name, why in refusals.items()))


def _open(backend: str, path: Path, refusals: dict[str, str]) -> Runner:
    if backend == "ort":
        from engine.runtime.ort import OrtRunner

        return OrtRunner(path, refusals)
    from engine.runtime.eager import EagerRunner

    return EagerRunner(path, refusals)


__all__ = ["BackendName", "Runner", "load", "refusal", "report"]
