"""Provenance of a result: the code's commit and the versions it ran with."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.errors import OutputError

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("apexstream", "torch", "numpy", "opencv-contrib-python", "ai-edge-litert", "onnxruntime")


def commit(root: Path = ROOT) -> str:
    """Hash of the commit that the code in root is, with "+changes" where tracked files differ; "unknown" where root is not the
    top of a git checkout or git is not there."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return "unknown"
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return "unknown"
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def versions() -> dict[str, str]:
    """Versions of Python, system and the packages that matter in an evaluation; "absent" for what is not installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def made_here(device: str | None = None) -> dict[str, str]:
    """Commit and versions of the running code, and the device that it computes on, where one is named."""
    return {"commit": commit(), **({} if device is None else {"device": device}), **versions()}


def write_provenance(path: Path, folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write as JSON, and return, what makes the `report` (the running code) and what made its `folds`
    (`training.fold_record.makers`). OutputError where the file cannot be written."""
    facts = {"report": made_here(), "folds": list(folds)}
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as cause:
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause
    return facts


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
