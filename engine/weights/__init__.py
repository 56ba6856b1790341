"""The networks that come with the project, each an ONNX file with a card (JSON) of the same stem beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from engine.config import InputKind, Settings
from engine.errors import WeightsError
from engine.geometry import INPUTS
from engine.models import architecture

_HERE = Path(__file__).parent

DEFAULT = "ahmsa-3db"
"""The network used where none is named."""

JUDGE = "judge"
"""The network that separates expressions from what else faces do (`engine.spotting.judge`); it names no class."""


_WORDS = r"^\w[\w .+-]{0,63}$"
"""Names of networks and classes: they go into tables, subtitles, terminals and pages."""


class Hashed(Settings):
    """Base of cards: frozen, and bound to the content of one file."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")


AnyCard = TypeVar("AnyCard", bound=Hashed)


class Card(Hashed):
    """What is known of a network: how it is fed, what it answers, how good it is, what it may be used for."""

    name: str = Field(pattern=_WORDS)
    network: str
    """Architecture, a name that `engine.models.build` knows."""
    options: dict[str, Any]
    members: int = Field(ge=1)
    """Networks averaged in the file."""
    kernel: dict[str, int | float] | None = None
    """The kernel machine beside them: its `centres` (how many) and its `share` of the logits."""
    classes: tuple[Annotated[str, Field(pattern=_WORDS)], ...] = Field(min_length=2, max_length=64)
    """In the order of the output's columns."""
    input: InputKind
    """What it is fed with, one of `engine.geometry.INPUTS`."""
    input_shape: tuple[int, int, int]
    temperature: float = Field(gt=0)
    """By which the logits are divided in the file, so that confidence is calibrated on held-out subjects."""
    uncertain_below: float = Field(ge=0, le=1)
    """An answer whose greatest probability is lower is to be called uncertain."""
    recipe: str
    """The training configuration's name."""
    data: str
    licence: str
    scores: dict[str, float | str] = Field(default_factory=dict)
    """Leave-one-subject-out figures of the same recipe, and how they were measured."""

    @model_validator(mode="after")
    def _input_of_its_shape(self) -> Self:
        if self.input_shape != INPUTS[self.input]:
            raise ValueError(f"the input {self.input} is {INPUTS[self.input]}, not input_shape {self.input_shape}")
        return self

    @property
    def model_id(self) -> str:
        """Name and content in one line, as events carry it."""
        return f"{self.name}@sha256:{self.sha256[:12]}"

    def label(self, probabilities: dict[str, float], below: float | None = None) -> tuple[str, float]:
        """(label, confidence) of one answer: its likeliest class, or "uncertain" below a threshold (default: the card's)."""
        best = max(probabilities, key=lambda name: probabilities[name])
        confidence = probabilities[best]
        return (best if confidence >= (self.uncertain_below if below is None else below) else "uncertain"), confidence


def default_weights() -> Path:
    """The ONNX file of the network used where none is named."""
    return _HERE / f"{DEFAULT}.onnx"


def shipped() -> tuple[str, ...]:
    """Names of the networks that come with the project, the default first."""
    cards = (path for path in _HERE.glob("*.onnx") if path.with_suffix(".json").is_file())
    names = (path.stem for path in cards if path.stem != JUDGE)
    return tuple(sorted(names, key=lambda name: (name != DEFAULT, name)))


def weights_for(network: str) -> Path:
    """The shipped ONNX file of an architecture of `engine.models`; the default network where it is of that architecture.

    Raises ConfigError for an architecture that does not exist, and WeightsError, which says how to make such a file, where
    none is shipped.
    """
    architecture(network)
    for name in shipped():
        if json.loads((_HERE / f"{name}.json").read_bytes())["network"] == network:
            return _HERE / f"{name}.onnx"
    raise WeightsError(
        f"no weights of {network} come with apexstream: train it (apexstream train --config configs/train/{network}.toml "
        f"--data DIR --out runs/{network}), then apexstream export runs/{network} --out {network}.onnx, and name that file "
        "(--weights, or recognizer.weights in a settings file); the recipes in configs/train come with the source code, not "
        "with the installed package"
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_card(weights: str | Path | None = None) -> Card:
    """The card beside a network file (default: the shipped one's), once the file is known to match it.

    Raises WeightsError where file or card is missing, the card cannot be read, or the file's content is another.
    """
    return read_card(Path(weights) if weights is not None else default_weights(), Card)


def read_card(path: Path, kind: type[AnyCard]) -> AnyCard:
    """The card, of a kind that has a sha256, beside a network file, once the file is known to match it.

    Raises WeightsError as `load_card` does.
    """
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            raise WeightsError(f"there is no {needed}; a network is an .onnx file with its card (.json) beside it")
    try:
        card = kind.model_validate_json(card_path.read_bytes())
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise WeightsError(f"the model card {card_path} cannot be used: {where}: {first['msg']}") from wrong
    if (found := sha256_of(path)) != card.sha256:
        raise WeightsError(f"{path} does not match its card (its sha256 is {found[:12]}, the card's {card.sha256[:12]})")
    return card
