"""`apexstream doctor`: what this machine has, which backends are used, and why."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from apexstream.commands import say
from apexstream.native_output import native_output_hidden
from engine.errors import ApexError

Standing = Literal["ok", "info", "failed"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at; "info" is neither good nor bad, "failed" means that the core cannot work."""

    topic: str
    name: str
    standing: Standing
    detail: str


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Say what this machine has, which backends will be used, and why.

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
    """Look at everything; nothing that goes wrong stops the rest."""
    found = [*system(), *packages(), *accelerators()]
    probes: tuple[tuple[str, str, Callable[[], str]], ...] = (
        ("video", "H.264 decoding", _h264),
        ("faces", "face model", _face_model),
        ("faces", "face mesh", _face_mesh),
        ("faces", "dlib face detector", _dlib_detector),
        ("network", "shipped weights", _weights),
        ("network", "runtime", _runtime),
        ("flow", "TV-L1", _flow),
        ("files", "scratch folder", lambda: _writable(Path(tempfile.gettempdir()))),
    )
    return found + [probe(*what) for what in probes] + [_own_data_folder(), _current_folder()]


def probe(topic: str, name: str, look: Callable[[], str]) -> Finding:
    """The finding of look, which returns a detail or raises."""
    try:
        return Finding(topic, name, "ok", look())
    except ApexError as error:
        return Finding(topic, name, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises here is what the user came to hear
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
    """GPU, CUDA, Triton, TensorRT: what is there, and why it is not used where it is not."""
    from engine.ops.strain import gpu as strain_gpu
    from engine.ops.tvl1 import gpu as tvl1_gpu
    from engine.runtime import NEEDS, UNPROVEN, refusal

    used = {"TV-L1 on a GPU": _told(tvl1_gpu.refusal), "strain on a GPU": _told(strain_gpu.refusal)}
    used |= {f"runtime {name}": _told(partial(refusal, name)) for name in NEEDS}
    unproven = {f"runtime {name}": f"; {told}" for name, told in UNPROVEN.items()}
    return [
        Finding("accelerators", "NVIDIA GPU", "info", str(_told(_gpu))),
        Finding("accelerators", "CUDA through PyTorch", "info", str(_told(_cuda))),
        *(
            Finding("accelerators", name, "info", _presence(module, extra))
            for name, module, extra in (("Triton", "triton", "gpu"), ("TensorRT", "tensorrt", "trt"))
        ),
        *(
            Finding("backends", name, "info", (f"not used: {why}" if why else "can be used") + unproven.get(name, ""))
            for name, why in used.items()
        ),
    ]


def _told(look: Callable[[], str | None]) -> str | None:
    """What look says, or what keeps it from saying anything."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever a library raises here is what the user came to hear
        return f"cannot be told: {_in_a_line(error)}"


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _gpu() -> str:
    from engine.runtime import gpu

    try:
        found = gpu.find()
    except ApexError as none:
        return str(none)
    return f"{found.name}, {found.sm}"


def _cuda() -> str:
    if find_spec("torch") is None:
        return "PyTorch is not installed; analysis does not need it"
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    return f"none: PyTorch {torch.__version__} {'sees no GPU' if torch.version.cuda else 'is built for the CPU'}"


def _presence(module: str, extra: str) -> str:
    return "installed" if find_spec(module) is not None else f"not installed; in the extra {extra}"


def _h264() -> str:
    import av

    decoder = av.Codec("h264", "r")
    versions = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"{decoder.long_name}, libavcodec {versions}"


def _face_model() -> str:
    from engine.mesh import bundle

    where = bundle.place()
    bundle.read()
    return f"{where.path} ({where.why}), content as expected"


def _face_mesh() -> str:
    import numpy as np

    from engine.faces.landmarks import FaceLocator
    from engine.types import Frame

    started = time.perf_counter()
    locator = FaceLocator()
    try:
        backend, faces = locator.backend, locator.locate(Frame(0, 0.0, np.full((256, 256, 3), 128, np.uint8)))
    finally:
        locator.close()
    if faces:
        raise RuntimeError(f"it sees {len(faces)} faces in an empty picture")
    return f"{backend} loads and runs it ({time.perf_counter() - started:.1f} s)"


def _dlib_detector() -> str:
    import dlib
    import numpy as np

    found = dlib.get_frontal_face_detector()(np.full((128, 128), 128, np.uint8))
    if len(found):
        raise RuntimeError(f"it sees {len(found)} faces in an empty picture")
    return f"dlib {dlib.__version__} loads and runs"


def _weights() -> str:
    from engine.weights import load_card

    card = load_card()
    return f"{card.model_id}, content as its card says; licence: {card.licence}"


def _runtime() -> str:
    import numpy as np
    from platformdirs import user_data_path

    from engine.runtime import load
    from engine.weights import default_weights

    runner = load(default_weights(), cache=user_data_path("apexstream", appauthor=False) / "engines")
    runner(np.full((1, *runner.input_shape), 0.5, np.float32))
    started = time.perf_counter()
    answer = runner(np.full((1, *runner.input_shape), 0.5, np.float32))
    if not np.isclose(answer.sum(), 1, atol=1e-3):
        raise RuntimeError(f"the network's probabilities add up to {answer.sum():.3f}")
    why = "; ".join(f"{name} not: {reason}" for name, reason in runner.refusals.items()) or "the first choice of auto"
    told = f"{runner.backend} on {runner.device} ({1000 * (time.perf_counter() - started):.1f} ms a map), {why}"
    return "; ".join((told, *runner.notes))


def _flow() -> str:
    import numpy as np

    from engine.ops.tvl1 import cpu, prepare, tvl1

    chosen = prepare()
    why = f", because {cpu.refusal()}" if chosen == "reference" else ""
    picture = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    started = time.perf_counter()
    tvl1(picture, picture)
    return f"{chosen} ({1000 * (time.perf_counter() - started):.1f} ms a pair of 128 px crops){why}"


def _own_data_folder() -> Finding:
    from platformdirs import user_data_path

    folder = user_data_path("apexstream", appauthor=False)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return _told_writable("user data folder", folder, there)


def _current_folder() -> Finding:
    return _told_writable("current folder", Path.cwd(), Path.cwd())


def _told_writable(name: str, shown: Path, there: Path) -> Finding:
    """Information only: results may go elsewhere."""
    try:
        _writable(there)
    except OSError as error:
        return Finding("files", name, "info", f"{shown} cannot be written ({error.strerror}); choose another with --out")
    return Finding("files", name, "ok", str(shown))


def _writable(folder: Path) -> str:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
    return str(folder)


def _print(findings: list[Finding]) -> None:
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            say(f"\n{topic}")
        mark = {"ok": "ok    ", "info": "      ", "failed": "FAILED"}[finding.standing]
        say(f"  {mark} {finding.name}: {finding.detail}")
