"""Settings of the pipeline: typed, frozen, unknown keys refused.

A settings file is TOML with the tables below; every key is optional.

    [landmarks]  max_faces, mesh_hz, ...
    [spotter]    floor_px, noise_factor, ...
    [recognizer] network, weights, backend, uncertain_below
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import ConfigError
from engine.geometry import INPUTS
from engine.models import ARCHITECTURES


def _one_of(names: Collection[str], what: str) -> AfterValidator:
    def checked(name: str) -> str:
        if name not in names:
            raise ValueError(f"no {what} is called {name!r}; there are {', '.join(names)}")
        return name

    return AfterValidator(checked)


InputKind = Annotated[str, _one_of(INPUTS, "input")]
"""What a network is fed with, one of `engine.geometry.INPUTS`."""

ArchitectureName = Annotated[str, _one_of(ARCHITECTURES, "architecture")]
"""One of `engine.models.ARCHITECTURES`. Settings, cards and recipes share these checks."""


class Settings(BaseModel):
    """Base: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _possible_paths(self) -> Self:
        impossible = next((name for name, value in self if isinstance(value, Path) and "\0" in str(value)), None)
        if impossible is not None:
            raise ValueError(f"{impossible} is no possible path: it holds a character NUL")
        return self


class LandmarkSettings(Settings):
    """Finding and following faces."""

    max_faces: int = Field(8, ge=1, le=32)
    """The most faces followed at once."""
    mesh_hz: float = Field(5.0, gt=0)
    """Face meshes per second of source time; frames between are registered by texture."""
    alert_hz: float = Field(31.0, gt=0)
    """Face meshes per second while an eye changes; of no effect below mesh_hz."""
    mouth_hz: float = Field(15.0, gt=0)
    """Face meshes per second while the mouth changes; likewise."""
    discover_s: float = Field(1.0, gt=0)
    """Seconds of source time between searches for new faces while one is followed and the picture changes."""
    keep_s: float = Field(1.0, ge=0)
    """Seconds a lost face keeps its id; one that returns later has it again if it looks like it."""
    model: Path | None = None
    """Where MediaPipe's face_landmarker.task lies (that very file); default: APEXSTREAM_FACE_MODEL, else the user's data
    folder."""
    backend: Literal["auto", "litert", "mediapipe"] = "auto"
    """What runs that model: auto, litert or mediapipe (needs the extra of that name)."""
    min_face_px: float = Field(32.0, gt=0)
    """Smallest face, in pixels of the frame between its temples."""


class SpotterSettings(Settings):
    """Finding onset, apex and offset in the motion of the face; lengths in pixels of the 128 px crop, times in seconds."""

    floor_px: float = Field(0.20, gt=0)
    """No motion under this is ever reported."""
    noise_factor: float = Field(3.3, gt=0)
    """A motion must be this many times the usual unrest of its region."""
    apex_drop: float = Field(0.15, gt=0, lt=1)
    """The apex is sure once the motion fell by this share of it."""
    longest_s: float = Field(8.0, gt=0.5)
    """An expression held longer becomes the new neutral."""
    shortest_s: float = Field(0.10, ge=0)
    """Shorter twitches are not expressions."""
    sensitivity: Literal["low", "normal", "high"] = "normal"
    """How readily a motion is called an expression: low (few false alarms), normal or high (few misses)."""
    judge: Path | None = None
    """A judge with its card, used instead of the shipped one."""


class RecognizerSettings(Settings):
    """Naming the expression."""

    network: ArchitectureName = "ahmsa"
    """Architecture whose shipped weights are used."""
    weights: Path | None = None
    """An exported network with its card, of any architecture, used instead."""
    backend: Literal["auto", "tensorrt", "tensorrt-rtx", "cuda", "torch-cuda", "ort", "eager"] = "auto"
    """What runs the network: cuda is ONNX Runtime on the GPU, ort on the CPU, eager PyTorch."""
    engine_cache: Path | None = None
    """Folder for networks that TensorRT compiled; the commands take the user's data folder."""
    flow_backend: Literal["auto", "cpu", "gpu", "reference"] = "auto"
    """What computes the flow."""
    uncertain_below: float | None = Field(None, ge=0, le=1)
    """Confidence under which no label is given; default: the card's."""


class PipelineSettings(Settings):
    """All settings of `Pipeline`."""

    landmarks: LandmarkSettings = LandmarkSettings()
    spotter: SpotterSettings = SpotterSettings()
    recognizer: RecognizerSettings = RecognizerSettings()


def load_settings(path: Path) -> PipelineSettings:
    """Settings from a TOML file. Raises ConfigError that names the key and what was expected."""
    return parse_settings(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises ConfigError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is no valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"the settings file {path} is nested deeper than any settings are") from error


def parse_settings(content: dict[str, Any], where: str = "settings") -> PipelineSettings:
    """Settings from nested dictionaries; where names their origin in errors."""
    try:
        return PipelineSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {key}: {first['msg'].lower()}") from error
