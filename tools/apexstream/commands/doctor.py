"""`apexstream doctor`: what this machine has, which backends are used, and why."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from apexstream import probes
from apexstream.commands import say
from apexstream.native_output import native_output_hidden
from engine.errors import ApexError

Standing = Literal["ok", "info", "failed"]


@dataclass(frozen=True)
class Finding:
    """One result; "info" is neither good nor bad, "failed" means that the core cannot work."""

    topic: str
    name: str
    standing: Standing
    detail: str


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Report what this machine has, which backends will be used, and why.

    Exit code 0 when videos can be analysed here, 1 when not.
    """
    with native_output_hidden(not ctx.obj["debug"]):
        findings = examine()
    failed = [finding for finding in findings if finding.standing == "failed"]
    if as_json:
        say(json.dumps({"works": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
        say(f"\nVideos can{'not' if failed else ''} be analysed here.")
    if failed:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Run all checks; one that fails does not stop the others."""
    found = [*system(), *packages(), *accelerators()]
    checks: tuple[tuple[str, str, Callable[[], str]], ...] = (
        ("video", "H.264 decoding", probes.h264),
        ("faces", "face model", probes.face_model),
        ("faces", "face mesh", probes.face_mesh),
        ("faces", "dlib face detector", probes.dlib_detector),
        ("network", "shipped weights", probes.weights),
        ("network", "runtime", probes.runtime),
        ("flow", "TV-L1", probes.flow),
        ("files", "scratch folder", lambda: probes.writable(Path(tempfile.gettempdir()))),
    )
    return found + [probe(*check) for check in checks] + [_own_data_folder(), _current_folder()]


def probe(topic: str, name: str, check: Callable[[], str]) -> Finding:
    """The finding of check, which returns a detail or raises."""
    try:
        return Finding(topic, name, "ok", check())
    except ApexError as error:
        return Finding(topic, name, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the finding
        return Finding(topic, name, "failed", _in_a_line(error))


def system() -> list[Finding]:
    """Operating system, Python, processor, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    supported = sys.version_info[:2] >= (3, 11)
    python = f"{platform.python_version()} in {sys.prefix}" + ("" if supported else "; 3.11 or newer is needed")
    return [
        Finding("system", "operating system", "info", f"{platform.platform()}"),
        Finding("system", "Python", "ok" if supported else "failed", python),
        Finding("system", "processor", "info", f"{cores} cores usable, {platform.machine()}"),
        Finding("system", "ffmpeg", "info", "not needed: PyAV brings its own libraries"),
    ]


def packages() -> list[Finding]:
    """Every package the project requires, then those of the extras."""
    findings = []
    for line in requires("apexstream") or []:
        if line.startswith("apexstream"):
            continue
        name, extra = _requirement(line)
        if extra == "dev":
            continue
        try:
            findings.append(Finding("packages", name, "ok", version(name) + (f" (extra {extra})" if extra else "")))
        except PackageNotFoundError:
            if extra is None:
                findings.append(Finding("packages", name, "failed", "not installed; pip install apexstream again"))
            else:
                findings.append(Finding("packages", name, "info", f"not installed; in the extra {extra}"))
    shown = {finding.name: finding for finding in reversed(findings)}
    return list(reversed(shown.values()))


def _requirement(line: str) -> tuple[str, str | None]:
    """'onnx>=1.16; extra == "train"' -> ('onnx', 'train')."""
    specifier, _, marker = line.partition(";")
    name = next((specifier[:i] for i, c in enumerate(specifier) if not (c.isalnum() or c in "-_.")), specifier).strip()
    _, _, extra = marker.partition("extra ==")
    return name, extra.strip(" )\"'") or None


def accelerators() -> list[Finding]:
    """GPU, CUDA, Triton, TensorRT: which are there, and why a backend is not used."""
    from engine.ops.strain import gpu as strain_gpu
    from engine.ops.tvl1 import gpu as tvl1_gpu
    from engine.runtime import NEEDS, UNPROVEN, refusal
    from engine.runtime.rtx import PACKAGE

    used = {"TV-L1 on a GPU": _detail_of(tvl1_gpu.refusal), "strain on a GPU": _detail_of(strain_gpu.refusal)}
    used |= {f"runtime {name}": _detail_of(partial(refusal, name)) for name in NEEDS}
    unproven = {f"runtime {name}": f"; {note}" for name, note in UNPROVEN.items()}
    return [
        Finding("accelerators", "NVIDIA GPU", "info", str(_detail_of(probes.gpu))),
        Finding("accelerators", "CUDA through PyTorch", "info", str(_detail_of(probes.cuda))),
        Finding("accelerators", "compiled kernels", "info", str(_detail_of(probes.kernel_cache))),
        *(
            Finding("accelerators", name, "info", _presence(module, extra))
            for name, module, extra in (
                ("Triton", "triton", "gpu"),
                ("TensorRT", "tensorrt", "trt"),
                ("TensorRT for RTX", PACKAGE, "rtx"),
            )
        ),
        *(
            Finding("backends", name, "info", (f"not used: {why}" if why else "can be used") + unproven.get(name, ""))
            for name, why in used.items()
        ),
    ]


def _detail_of(check: Callable[[], str | None]) -> str | None:
    """What check returns, or why it failed."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the finding
        return f"unknown: {_in_a_line(error)}"


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _presence(module: str, extra: str) -> str:
    return "installed" if find_spec(module) is not None else f"not installed; in the extra {extra}"


def _own_data_folder() -> Finding:
    from platformdirs import user_data_path

    folder = user_data_path("apexstream", appauthor=False)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return _writable_folder("user data folder", folder, there)


def _current_folder() -> Finding:
    return _writable_folder("current folder", Path.cwd(), Path.cwd())


def _writable_folder(name: str, shown: Path, there: Path) -> Finding:
    """Information only: results may go elsewhere."""
    try:
        probes.writable(there)
    except OSError as error:
        return Finding("files", name, "info", f"{shown} cannot be written ({error.strerror}); choose another with --out")
    return Finding("files", name, "ok", str(shown))


def _print(findings: list[Finding]) -> None:
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            say(f"\n{topic}")
        mark = {"ok": "ok    ", "info": "      ", "failed": "FAILED"}[finding.standing]
        say(f"  {mark} {finding.name}: {finding.detail}")
