"""The results on disk, each as soon as it is there, and on what they were measured."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apexstream.bench import machine
from apexstream.bench.on_gpu.check import Entry
from engine.errors import InputError
from engine.ops import device
from stream.files import write_atomically
from training.provenance import ROOT, commit

SOURCES = ("engine", "training", "tools/apexstream/bench")
"""Folders whose Python files decide what is measured."""


@dataclass(frozen=True)
class Record:
    """A JSON file of runs; this one's checks are added to the run of the same source, device and versions."""

    path: Path
    runs: list[dict[str, Any]]
    run: dict[str, Any]

    @classmethod
    def open(cls, path: Path, made_by: dict[str, Any]) -> Record:
        """The record at path, a new one where there is none. Raises InputError for a file that is no such record."""
        runs = _read(path) if path.exists() else []
        same = (run for run in runs if run["made_by"] == made_by)
        run = next(same, None)
        if run is None:
            run = {"made_by": made_by, "begun": now(), "checks": {}}
            runs.append(run)
        return cls(path, runs, run)

    def finished(self, check: str) -> bool:
        """Whether the check has a result here that needs no other attempt."""
        return bool(self.run["checks"].get(check, {}).get("finished"))

    def add(self, check: str, entry: Entry) -> None:
        """Write a check's result. Raises OutputError."""
        self.run["checks"][check] = {"date": now(), **entry}
        write_atomically(self.path, [json.dumps({"runs": self.runs}, indent=1) + "\n"])


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        sound = all(isinstance(run["made_by"], dict) and isinstance(run["checks"], dict) for run in runs)
    except OSError as cause:
        raise InputError(f"the record {path} cannot be read: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(f"{path} is no record of this command; name another file with --out")
    return list(runs)


def made_here() -> dict[str, Any]:
    """What results depend on: source, device, driver, versions; nothing that names the machine or its user."""
    return {
        "commit": commit(),
        "source": source_digest(),
        "device": _device(),
        "processor": machine.processor(),
        "python": platform.python_version(),
        "versions": machine.versions(),
    }


def source_digest(root: Path = ROOT) -> str:
    """Identifies the source, also where there is no git or files were changed since the commit."""
    content = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


def _device() -> dict[str, Any]:
    import torch

    if device.interpreted():
        return {"name": "the CPU, which interprets the kernels"}
    facts = torch.cuda.get_device_properties(device.current_device())
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "multiprocessors": facts.multi_processor_count,
        "memory_gib": round(facts.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.split("\n")[0].strip()


def now() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
