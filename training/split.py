"""Divisions of a data set into training and test maps, by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import InputError

DEVELOPMENT_SHARE, DEVELOPMENT_SEED = 0.5, 2026
"""The development split of every trial in training/LEDGER.md, as `development_split` takes them."""


@dataclass(frozen=True)
class Fold:
    """One division: indices of the maps to fit to and of those to test on."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def _fold(name: str, subjects: Sequence[str], held_out: set[str]) -> Fold:
    inside = tuple(i for i, s in enumerate(subjects) if s not in held_out)
    outside = tuple(i for i, s in enumerate(subjects) if s in held_out)
    return Fold(name, inside, outside)


def leave_one_subject_out(subjects: Sequence[str]) -> list[Fold]:
    """One fold a subject, named by it, in the order of first appearance. InputError with fewer than two subjects."""
    everyone = list(dict.fromkeys(subjects))
    if len(everyone) < 2:
        raise InputError(f"leaving one subject out needs at least two subjects; the data contain {len(everyone)}")
    return [_fold(subject, subjects, {subject}) for subject in everyone]


def group_folds(subjects: Sequence[str], count: int, seed: int) -> list[Fold]:
    """Folds of about equally many subjects, drawn with seed; each subject is tested in exactly one."""
    everyone = np.array(list(dict.fromkeys(subjects)))
    if not 2 <= count <= len(everyone):
        raise InputError(f"{len(everyone)} subjects cannot be divided into {count} folds; 2 to {len(everyone)} are possible")
    np.random.default_rng(seed).shuffle(everyone)
    return [_fold(f"group{i}", subjects, set(part.tolist())) for i, part in enumerate(np.array_split(everyone, count))]


def check_apart(folds: Sequence[Fold], subjects: Sequence[str], databases: Sequence[str]) -> None:
    """InputError where a subject is on both sides of a fold, tested in two folds, or in two databases."""
    first: dict[str, str] = {}
    for subject, database in zip(subjects, databases, strict=True):
        if first.setdefault(subject, database) != database:
            raise InputError(f"the subject {subject} is in two databases, {first[subject]} and {database}; use two names")
    tested: set[str] = set()
    for fold in folds:
        fitted, held_out = ({subjects[i] for i in side} for side in (fold.train, fold.test))
        if both := sorted(fitted & held_out):
            raise InputError(f"the fold {fold.name} fits to its own test subject, {both[0]}; divide by subject")
        if twice := sorted(tested & held_out):
            raise InputError(f"the subject {twice[0]} is tested in two folds; once is expected")
        tested |= held_out


def development_split(subjects: Sequence[str], databases: Sequence[str], share: float, seed: int) -> tuple[int, ...]:
    """Indices of the maps of a share of each database's subjects, drawn with seed: those on which recipes are compared."""
    draw = np.random.default_rng(seed)
    chosen: set[str] = set()
    for database in sorted(set(databases)):
        people = sorted({s for s, d in zip(subjects, databases, strict=True) if d == database})
        chosen |= set(draw.permutation(people)[: round(share * len(people))].tolist())
    return tuple(i for i, s in enumerate(subjects) if s in chosen)
