"""The file with MediaPipe's face models: which one it is, where it is searched for, what is in it."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError

NAME = "face_landmarker.task"
VARIABLE = "APEXSTREAM_FACE_MODEL"
SIZE = 3_758_596
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
ADDRESS = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
FETCH = "apexstream fetch"

_SUFFIX = ".tflite"


@dataclass(frozen=True)
class Place:
    """Where the model is expected, and why there."""

    path: Path
    why: str


def place(setting: Path | None = None) -> Place:
    """Where the model is searched for: the setting, else the environment variable, else the user's data folder."""
    if setting is not None:
        return Place(setting, "setting landmarks.model")
    named = os.environ.get(VARIABLE)
    if named:
        return Place(Path(named).expanduser(), f"environment variable {VARIABLE}")
    import platformdirs

    return Place(platformdirs.user_data_path("apexstream", appauthor=False) / "models" / NAME, "user's data folder")


def read(setting: Path | None = None) -> bytes:
    """The model's content from its place. Raises WeightsError where it is missing, unreadable or another file."""
    where = place(setting)
    named = f"the face model {where.path} ({where.why})"
    own = setting is not None
    try:
        content = where.path.read_bytes()
    except FileNotFoundError as error:
        way_out = "leave landmarks.model out or name the file" if own else f"`{FETCH}` fetches it"
        raise WeightsError(f"{named} is missing; {way_out}") from error
    except OSError as error:
        raise WeightsError(f"{named} cannot be read: {error.strerror or error}") from error
    try:
        check(content)
    except WeightsError as error:
        way_out = f"leave landmarks.model out or name MediaPipe's {NAME}" if own else f"remove it, and `{FETCH}` fetches it"
        raise WeightsError(f"{named} is not usable: {error}; {way_out}") from error
    return content


def check(content: bytes) -> None:
    """Raises WeightsError unless this is the very model that the project was measured with."""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise WeightsError(f"it has {len(content):,} bytes and another SHA-256 than MediaPipe's {NAME} ({SIZE:,} bytes)")


def networks(content: bytes) -> dict[str, bytes]:
    """The networks in the bundle, by name: face_detector, face_landmarks_detector, face_blendshapes."""
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        return {name.removesuffix(_SUFFIX): bundle.read(name) for name in bundle.namelist() if name.endswith(_SUFFIX)}
