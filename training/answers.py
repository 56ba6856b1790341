"""The out-of-fold answers of an evaluation: one table per seed, each map with its true label, subject and database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from training.datasets import CLASSES, FlowMaps
from training.fold_record import FoldResult
from training.metrics import Scores, score

F64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """One seed's answers to N maps, given by networks that never saw the map's subject.

    names, databases and subjects [N] (a subject is written "database/subject"), truth [N] of CLASSES, logits [N, K] of the
    committee before any temperature. Where the record has them: members [N, M, K] of each of its networks alone, kernel [N, K]
    of its kernel machine alone, and peeked [N, K] of the epoch that was best on the test subject.
    """

    seed: int
    names: tuple[str, ...]
    databases: tuple[str, ...]
    subjects: tuple[str, ...]
    truth: Labels
    logits: F64
    members: F64 | None = None
    kernel: F64 | None = None
    peeked: F64 | None = None

    def scores(self, logits: F64 | None = None, database: str | None = None) -> Scores:
        """Scores of these logits (default: the committee's) from one pooled confusion matrix, of one database or of all."""
        given = self.logits if logits is None else logits
        kept = np.array([database in (None, own) for own in self.databases])
        return score(self.truth[kept].tolist(), given[kept].argmax(1).tolist(), len(CLASSES))

    def take(self, rows: Sequence[int]) -> Answers:
        """The answers to the maps at these rows, in that order."""

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows)

        def of(array: F64 | None) -> F64 | None:
            return None if array is None else array[list(rows)]

        strings = (pick(self.names), pick(self.databases), pick(self.subjects))
        optional = (of(self.members), of(self.kernel), of(self.peeked))
        return Answers(self.seed, *strings, self.truth[list(rows)], self.logits[list(rows)], *optional)


def gather(results: Sequence[FoldResult], data: FlowMaps | None = None) -> list[Answers]:
    """One table per seed, in order of first appearance, rows in the first seed's order.

    data gives subject and database of each map; without it they are taken from the fold's name. InputError where nothing was
    tested, a map was tested twice under a seed, seeds tested different maps, or a logit is not finite.
    """
    if not results:
        raise InputError("no fold was tested, so there is nothing to report")
    tables = [_table([r for r in results if r.seed == seed], data) for seed in dict.fromkeys(r.seed for r in results)]
    first = _keys(tables[0])
    return [tables[0], *(_in_order(table, first) for table in tables[1:])]


def _table(folds: Sequence[FoldResult], data: FlowMaps | None) -> Answers:
    names = tuple(name for fold in folds for name in fold.names)
    owners = _owners(folds, data)
    table = Answers(
        seed=folds[0].seed,
        names=names,
        databases=tuple(database for _, database in owners),
        subjects=tuple(subject for subject, _ in owners),
        truth=np.array([label for fold in folds for label in fold.truth], np.int64),
        logits=_stacked(folds, "logits", (len(names), len(CLASSES))),
        members=_stacked(folds, "members", (len(names), -1, len(CLASSES))) if _have(folds, "members") else None,
        kernel=_stacked(folds, "kernel", (len(names), len(CLASSES))) if _have(folds, "kernel") else None,
        peeked=_stacked(folds, "peeked", (len(names), len(CLASSES))) if _have(folds, "peeked") else None,
    )
    keys = _keys(table)
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the map {'/'.join(twice)} was tested twice under seed {table.seed}; a subject belongs to one fold")
    return table


def _owners(folds: Sequence[FoldResult], data: FlowMaps | None) -> list[tuple[str, str]]:
    """(subject, database) of each tested map; a fold of several subjects is resolved by the maps' names."""
    if data is None:
        return [(fold.subject, fold.subject.split("/")[0]) for fold in folds for _ in fold.names]
    owners = {name: (s, d) for name, s, d in zip(data.names, data.subjects, data.databases, strict=True)}
    known, found = set(data.subjects), []
    for subject, name in ((fold.subject, name) for fold in folds for name in fold.names):
        owner = owners.get(name)
        if owner is None or (subject in known and subject != owner[0]):
            raise InputError(f"the record has the map {name} of {subject}, which the data do not contain")
        found.append(owner)
    return found


def _have(folds: Sequence[FoldResult], field: str) -> bool:
    """Whether every fold has the field; older records do not."""
    return all(getattr(fold, field) is not None for fold in folds)


def _stacked(folds: Sequence[FoldResult], field: str, shape: tuple[int, ...]) -> F64:
    rows: list[Any] = [row for fold in folds for row in getattr(fold, field)]
    try:
        stacked = np.array(rows, np.float64).reshape(shape)
    except ValueError as cause:
        raise InputError(f"the {field} of seed {folds[0].seed} are not one row of {len(CLASSES)} a map") from cause
    if not np.isfinite(stacked).all():
        raise InputError(f"the {field} of seed {folds[0].seed} contain a value that is not finite; that fit failed")
    return stacked


def _keys(table: Answers) -> list[tuple[str, str]]:
    return list(zip(table.subjects, table.names, strict=True))


def _in_order(table: Answers, wanted: Sequence[tuple[str, str]]) -> Answers:
    place = {key: row for row, key in enumerate(_keys(table))}
    if place.keys() != set(wanted):
        raise InputError(f"seed {table.seed} tested other maps than the first seed; finish all folds of all seeds first")
    return table.take([place[key] for key in wanted])
