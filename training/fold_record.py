"""The record of an evaluation: JSON lines, a header (recipe and data) and one line per finished fold.

A stopped run continues after the last line; a record of another recipe or other data is refused rather than extended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import ConfigError, OutputError
from training.recipe import Recipe

Row = tuple[float, ...]


@dataclass(frozen=True)
class FoldResult:
    """One test subject: names and true labels [n] of the subject's maps, and logits before the temperature.

    logits [n][K] are the committee's, members [n][M][K] each network's alone, kernel [n][K] the kernel machine's, and peeked
    [n][K] the committee's at the epoch that was best on this very subject (only on request: a leak, never a score).
    """

    subject: str
    seed: int
    names: tuple[str, ...]
    truth: tuple[int, ...]
    logits: tuple[Row, ...]
    seconds: float
    members: tuple[tuple[Row, ...], ...] | None = None
    kernel: tuple[Row, ...] | None = None
    peeked: tuple[Row, ...] | None = None


def open_record(record: Path, header: dict[str, Any]) -> list[FoldResult]:
    """The finished folds of a record, which is created with this header if it does not exist, and is ready for `append_fold`.

    Raises ConfigError where it has another header or cannot be read, OutputError where it cannot be written.
    """
    if not _has_header(record, header):
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.unlink(missing_ok=True)
        except OSError as cause:
            raise OutputError(f"the record {record} cannot be made: {cause.strerror}") from cause
        _append(record, {"evaluation": header})
        return []
    found, results = read_record(record)
    differing = sorted(name for name in {*header, *found} if found.get(name) != header.get(name))
    if differing:
        raise ConfigError(f"the record {record} is of another {' and '.join(differing)}; name another file or delete it")
    content = record.read_bytes()
    if not content.endswith(b"\n"):
        record.write_bytes(content[: content.rindex(b"\n") + 1])
    return results


def append_fold(record: Path, result: FoldResult, maker: dict[str, str]) -> None:
    """Add a finished fold and what made it (`training.provenance.made_here`). Raises OutputError."""
    _append(record, {"fold": asdict(result), "made_by": maker})


def read_record(record: Path) -> tuple[dict[str, Any], list[FoldResult]]:
    """The header, its recipe completed by `with_defaults`, and the finished folds of a record; a last line that was cut off
    while writing is left out, and of a fold evaluated twice (again, with select_on_test) the later one counts."""
    header, folds = _lines(record)
    try:
        results = [FoldResult(**{name: _tuples(value) for name, value in fold["fold"].items()}) for fold in folds]
        return header | {"recipe": with_defaults(header.get("recipe"))}, list(
            {(r.seed, r.subject): r for r in results}.values()
        )
    except (KeyError, TypeError, AttributeError) as cause:
        raise _not_a_record(record) from cause


def makers(record: Path, results: Iterable[FoldResult]) -> list[dict[str, Any]]:
    """What fitted these results of a record: every distinct commit with its versions, and how many `folds` it made.

    The commit of a fold from before this was recorded is "unknown".
    """
    _, lines = _lines(record)
    made_by = {(line["fold"]["seed"], line["fold"]["subject"]): line.get("made_by") for line in lines}
    made = [made_by.get((result.seed, result.subject)) or {"commit": "unknown"} for result in results]
    distinct = [maker for number, maker in enumerate(made) if maker not in made[:number]]
    return [{"folds": made.count(maker), **maker} for maker in distinct]


def with_defaults(recipe: Any) -> Any:
    """A recorded recipe, completed by the defaults of settings that were added since; unchanged where it is no recipe."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _lines(record: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header, and the line of each fold."""
    try:
        lines = record.read_bytes().split(b"\n")[:-1]
    except OSError as cause:
        raise ConfigError(f"the record {record} cannot be read: {cause.strerror}") from cause
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError as cause:
            if number == 1:
                raise _not_a_record(record) from cause
            repair = "delete that line, and only its fold is evaluated again"
            raise ConfigError(f"{record}, line {number}, is damaged; {repair}") from cause
    try:
        header, *folds = found
        return dict(header["evaluation"]), folds
    except (ValueError, KeyError, TypeError) as cause:
        raise _not_a_record(record) from cause


def _not_a_record(record: Path) -> ConfigError:
    return ConfigError(f"{record} is not a record of an evaluation; name another file")


def _tuples(value: Any) -> Any:
    """A JSON value with tuples for lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _has_header(record: Path, header: dict[str, Any]) -> bool:
    """Whether the record holds more than a first line that was cut off while writing."""
    try:
        return not json.dumps({"evaluation": header}).encode().startswith(record.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as cause:
        raise ConfigError(f"the record {record} cannot be read: {cause.strerror}") from cause


def _append(record: Path, value: dict[str, Any]) -> None:
    try:
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as cause:
        raise OutputError(f"the record {record} cannot be written: {cause.strerror}") from cause
