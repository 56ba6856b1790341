"""Compiled networks as files: what an engine is valid for is written in front of it and checked before it is used.

A file is one line of JSON, the key and the SHA-256 of what follows, then the engine as TensorRT serialized it. An engine runs
only where it was built for: any difference from the key asked for is reported in words, and the caller compiles
again. Where the files lie is the caller's choice.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from engine.errors import OutputError

FORMAT = "apexstream engine 1"


@dataclass(frozen=True)
class EngineKey:
    """All that a compiled network depends on."""

    tensorrt: str
    """Version of TensorRT."""
    gpu: str
    """Compute capability, such as sm_90."""
    system: str
    """Operating system and processor."""
    onnx: str
    """SHA-256 of the ONNX file."""
    shapes: str
    """Batch sizes and input shape of the optimization profile."""
    flags: str
    """Precision asked for and builder flags."""


WORDS = {
    "tensorrt": "was built by TensorRT {theirs}, and this is {ours}",
    "gpu": "was built for a GPU of {theirs}, and this one is {ours}",
    "system": "was built on {theirs}, and this is {ours}",
    "onnx": "was built from another network file",
    "shapes": "was built for maps {theirs}, not {ours}",
    "flags": "was built with {theirs}, not {ours}",
}
"""What each difference from the key means for a file."""


def read(path: Path, key: EngineKey) -> tuple[bytes | None, str | None]:
    """The engine in a file, or why it is of no use here: (engine, None), (None, reason), or (None, None) without a file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as cause:
        return None, f"{path} cannot be read ({cause.strerror})"
    head, _, engine = content.partition(b"\n")
    try:
        header = json.loads(head)
        if header["format"] != FORMAT or header["sha256"] != hashlib.sha256(engine).hexdigest():
            return None, f"{path} is damaged"
        theirs = {name: str(header["key"][name]) for name in WORDS}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, f"{path} is no engine of apexstream"
    ours = asdict(key)
    for name, words in WORDS.items():
        if theirs[name] != ours[name]:
            return None, f"{path} {words.format(theirs=theirs[name], ours=ours[name])}"
    return engine, None


def write(path: Path, key: EngineKey, engine: bytes) -> None:
    """Write the engine so that readers see all of it or nothing. Raises OutputError."""
    head = {"format": FORMAT, "key": asdict(key), "sha256": hashlib.sha256(engine).hexdigest()}
    replace(path, json.dumps(head).encode() + b"\n" + engine)


def replace(path: Path, content: bytes) -> None:
    """Put content at path in one step, its folder made if need be. Raises OutputError."""
    draft = path.parent / f".{path.name}-{uuid4().hex}"  # readable to whom the umask lets, as a shared folder needs
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            file.write(content)
        draft.replace(path)
    except OSError as cause:
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
