"""Options and checks of options that several commands have, and what those options change in the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.models import ARCHITECTURES
from stream.events.formats import FORMATS
from stream.schema import LAST_SEQ

if TYPE_CHECKING:
    from engine.config import PipelineSettings


PROGRAMS = {"elan": "eaf", "praat": "textgrid", "excel": "csv"}
"""Programs that people name for the format of their files."""


def one_of(words: Sequence[str]) -> Callable[[str | None], str | None]:
    """The check of an option that takes one of words, or nothing; it raises BadParameter for another."""

    def checked(word: str | None) -> str | None:
        if word is not None and word not in words:
            meant = PROGRAMS.get(word)
            hint = f"; {word} opens {meant}" if meant in words else ""
            raise typer.BadParameter(f"{word!r} is none of {', '.join(words)}{hint}")
        return word

    return checked


def all_of(words: Sequence[str]) -> Callable[[list[str] | None], list[str] | None]:
    """The check of a repeatable option each of whose values is one of words, in small letters or not; as `one_of`."""
    check = one_of(words)

    def checked(given: list[str] | None) -> list[str] | None:
        lowered = [word.lower() for word in given or ()]
        for word in lowered:
            check(word)
        return lowered

    return checked


Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="|".join(FORMATS),
        callback=all_of(tuple(FORMATS)),
        help="Write events for another program too: ELAN (eaf), Praat (textgrid), BORIS (boris), ...; repeatable.",
        show_default=False,
    ),
]
DEVICES = ("auto", "cpu", "cuda")
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="|".join(DEVICES),
        callback=one_of(DEVICES),
        help="Where to fit: cuda is an NVIDIA GPU, auto takes one where PyTorch can use it.",
    ),
]
SENSITIVITIES = ("low", "normal", "high")
SensitivityOption = Annotated[
    str | None,
    typer.Option(
        "--sensitivity",
        metavar="|".join(SENSITIVITIES),
        callback=one_of(SENSITIVITIES),
        help="How readily a motion is called an expression: low for few false alarms, high for few misses.",
        show_default="normal",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="|".join(ARCHITECTURES),
        callback=one_of(tuple(ARCHITECTURES)),
        help="Whose shipped weights to use.",
        show_default=next(iter(ARCHITECTURES)),
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Exported network (.onnx) to use, its card beside it.", show_default=False),
]
"""--network and --weights: the options of every command that runs a network; at most one of them is given."""


REDIS_HELP = "redis://HOST:PORT/DB, with TLS rediss://; the password comes from APEXSTREAM_REDIS_PASSWORD."
RedisCertificates = Annotated[
    Path | None,
    typer.Option(
        "--redis-ca",
        metavar="FILE",
        envvar="APEXSTREAM_REDIS_CA",
        help="Certificates (PEM) that the Redis server's must come from; default: the system's.",
        show_default=False,
    ),
]


def with_network(settings: PipelineSettings, network: str | None, weights: Path | None) -> PipelineSettings:
    """The settings with the network that the command line names, if it does, in place of their own."""
    if not network and not weights:
        return settings
    chosen = {"network": network, "weights": None} if network else {"weights": weights}
    return settings.model_copy(update={"recognizer": settings.recognizer.model_copy(update=chosen)})


def with_sensitivity(settings: PipelineSettings, sensitivity: str | None) -> PipelineSettings:
    """The settings with the sensitivity that the command line names, if it does, in place of their own."""
    if sensitivity is None:
        return settings
    return settings.model_copy(update={"spotter": settings.spotter.model_copy(update={"sensitivity": sensitivity})})


def with_engines(settings: PipelineSettings, folder: Path | None = None) -> PipelineSettings:
    """The settings with a place for networks that TensorRT compiled, in the folder (default: the user's data folder), unless
    they name one."""
    if settings.recognizer.engine_cache is not None:
        return settings
    from platformdirs import user_data_path

    place = (folder or user_data_path("apexstream")) / "engines"
    return settings.model_copy(update={"recognizer": settings.recognizer.model_copy(update={"engine_cache": place})})


def valid_seq(seq: int | None) -> int | None:
    """seq; raises BadParameter where it is larger than any event's."""
    if seq is not None and seq > LAST_SEQ:
        raise typer.BadParameter(f"{seq} is more than any event's number")
    return seq


ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="auto|ADDRESS", help="Use a Ray cluster: its head's HOST:PORT.", show_default=False),
]
"""--cluster: the option of every command that can use several machines."""


def on_cluster(address: str | None, shared: Path, device: str = "cpu") -> dict[str, Any]:
    """The argument by which work of training runs on a cluster, where one is asked for; on which devices there, as --device.

    Nodes must see shared, or where it is a folder something that is in it: an empty folder may be one that is not mounted.
    """
    if address is None:
        return {}
    from apexstream.cluster.folds import pool_of
    from apexstream.commands import say

    seen = next(shared.iterdir(), shared) if shared.is_dir() else shared
    return {"open_pool": pool_of(address, partial(say, err=True), device, seen)}


MAX_JOBS = 64


def number_of_jobs(given: str) -> str:
    """The value of --jobs. Raises BadParameter for anything but auto and a number from 1 to MAX_JOBS."""
    if given != "auto" and not (given.isascii() and given.isdecimal() and 1 <= int(given) <= MAX_JOBS):
        raise typer.BadParameter(f"{given!r} is neither auto nor a number from 1 to {MAX_JOBS}")
    return given


def number_of_processes(given: str) -> int | Literal["auto"]:
    """The value of --processes. Raises BadParameter for anything but auto and a number from 0 to MAX_PROCESSES."""
    from stream.settings import MAX_PROCESSES

    if given == "auto":
        return "auto"
    if not (given.isascii() and given.isdecimal() and int(given) <= MAX_PROCESSES):
        raise typer.BadParameter(f"--processes: {given!r} is neither auto nor a number from 0 to {MAX_PROCESSES}")
    return int(given)
