"""Leave one subject out: every subject is judged once by a committee that never saw that face.

Each finished fold is appended to a record (JSON lines) at once, so a run that was stopped goes on where it was. The record's
first line says recipe and data; another recipe or other data are refused rather than mixed in. A fold's committee is the one
of the last epoch: nothing of the judged subject decides anything. Pre-trained starts hold no recorded face; they are made once
a seed and lie beside the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from engine.errors import ConfigError, OutputError
from training.datasets import FlowMaps
from training.pool import each, processes
from training.provenance import made_here
from training.recipe import Recipe, pretrained_members
from training.split import (
    DEVELOPMENT_SEED,
    DEVELOPMENT_SHARE,
    Fold,
    check_apart,
    development_split,
    group_folds,
    leave_one_subject_out,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.models.committee import Committee

GROUPS_SEED = 0
"""Draws the groups of subjects where groups are left out."""

Row = tuple[float, ...]


@dataclass(frozen=True)
class FoldResult:
    """One judged subject: names and true labels [n] of the subject's maps, and logits before the temperature.

    logits [n][K] are the committee's, members [n][M][K] each network's alone, kernel [n][K] the kernel machine's, and peeked
    [n][K] the committee's at the epoch that was best on this very subject (only where asked for: a leak, never a score).
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


Progress = Callable[[str, int, int], None]
"""Told what was done last, and how many steps of how many are done: pre-trained starts, then folds."""


def evaluate(
    recipe: Recipe,
    data: FlowMaps,
    record: Path,
    *,
    seeds: Sequence[int] = (0,),
    groups: int | None = None,
    development: bool = False,
    select_on_test: bool = False,
    jobs: int = 1,
    progress: Progress = lambda what, done, total: None,
) -> list[FoldResult]:
    """Judge the recipe on all subjects of data, once a seed; results in order of seed, then of the subjects' appearance.

    groups leaves out so many groups of subjects rather than each subject alone. With development only the subjects of
    `training.split.development_split` are judged, and all others always fitted to: that is how recipes are compared. Folds that
    the record holds already are not run again. jobs folds run at once, each in a process with one thread. Raises ConfigError
    where the record belongs to another recipe, division or data, OutputError where it cannot be written, InputError where a
    subject would be judged twice or by what saw it, ApexError where a process dies.
    """
    folds = _divided(data, groups, development)
    header = (
        _header(recipe, data) | ({} if groups is None else {"groups": groups}) | ({"development": True} if development else {})
    )
    done = {(r.seed, r.subject): r for r in _opened(record, header) if not select_on_test or r.peeked is not None}
    tasks = [(seed, fold) for seed in seeds for fold in folds]
    wanted = [task for task in tasks if (task[0], task[1].name) not in done]
    with processes(jobs, len(wanted)) as pool:
        starts = _starts(recipe, record.parent, wanted, pool, progress)
        progress("subjects", len(tasks) - len(wanted), len(tasks))
        judge, maker = partial(judge_fold, recipe, data, select_on_test=select_on_test), made_here()
        work = [partial(judge, seed, fold, starts=starts[seed]) for seed, fold in wanted]
        for count, result in enumerate(each(pool, work), start=len(tasks) - len(wanted) + 1):
            _append(record, {"fold": asdict(result), "made_by": maker})
            done[result.seed, result.subject] = result
            progress(result.subject, count, len(tasks))
    return [done[seed, fold.name] for seed, fold in tasks]


def _divided(data: FlowMaps, groups: int | None, development: bool) -> list[Fold]:
    judged: Sequence[int] = range(len(data))
    if development:
        judged = development_split(data.subjects, data.databases, DEVELOPMENT_SHARE, DEVELOPMENT_SEED)
    subjects = [data.subjects[i] for i in judged]
    folds = leave_one_subject_out(subjects) if groups is None else group_folds(subjects, groups, GROUPS_SEED)
    folds = [_among_all(fold, judged, len(data)) for fold in folds]
    check_apart(folds, data.subjects, data.databases)
    return folds


def _among_all(fold: Fold, judged: Sequence[int], maps: int) -> Fold:
    """A fold of some of the maps as one of all: what it does not hold out is fitted to."""
    held_out = {judged[i] for i in fold.judge}
    return Fold(fold.name, tuple(i for i in range(maps) if i not in held_out), tuple(sorted(held_out)))


def judge_fold(
    recipe: Recipe,
    data: FlowMaps,
    seed: int,
    fold: Fold,
    *,
    starts: Sequence[Path] = (),
    select_on_test: bool = False,
) -> FoldResult:
    """Fit on the fold's one side and answer for the other, on one thread. InputError where a subject is on both."""
    import time

    import torch

    from training.fit import fit

    check_apart([fold], data.subjects, data.databases)
    torch.set_num_threads(1)
    start = time.perf_counter()
    judged = data.take(fold.judge)
    maps = torch.from_numpy(judged.inputs(recipe.model.input))
    peek = _Peek(maps, judged.labels) if select_on_test else None
    network = fit(recipe, data.take(fold.fit), seed=seed, starts=starts, watch=peek)
    said = _said(network, maps, peek)
    judged_here = {"names": judged.names, "truth": tuple(judged.labels.tolist())}
    return FoldResult(fold.name, seed, **judged_here, **said, seconds=round(time.perf_counter() - start, 2))


def _said(network: Committee, maps: Tensor, peek: _Peek | None) -> dict[str, Any]:
    """What a fold's committee says of maps, under the names of `FoldResult`."""
    import torch

    with torch.inference_mode():
        alone, kernel = network.answers(maps)
        together = network.together(alone, kernel)
        peeked = peek.best(lambda members: network.together(members, kernel)) if peek else None
    return {
        "logits": _rows(together),
        "members": tuple(_rows(rows) for rows in alone.transpose(0, 1)),
        "kernel": None if kernel is None else _rows(kernel),
        "peeked": None if peeked is None else _rows(peeked),
    }


class _Peek:
    """Looks at the judged subject after every epoch, as much of the literature does."""

    def __init__(self, maps: Tensor, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        self._maps, self._labels = maps, labels
        self._seen: dict[int, list[Tensor]] = {}

    def __call__(self, member: int, epochs: int, network: nn.Module) -> None:
        import torch

        from engine.models.committee import Committee

        with torch.inference_mode():
            alone, _ = Committee([network]).answers(self._maps)
            self._seen.setdefault(member, []).append(alone[0])

    def best(self, together: Callable[[Tensor], Tensor]) -> Tensor:
        """The committee's logits [n, K] of the earliest epoch with the most right answers; a member that is fitted for fewer
        epochs than another keeps its last."""
        import torch

        longest, members = max(map(len, self._seen.values())), self._seen.values()
        epochs = [together(torch.stack([rows[min(e, len(rows) - 1)] for rows in members])) for e in range(longest)]
        hits = [int((logits.argmax(1).numpy() == self._labels).sum()) for logits in epochs]
        return epochs[int(np.argmax(hits))]


def _rows(logits: Tensor) -> tuple[Row, ...]:
    return tuple(tuple(round(float(v), 5) for v in row) for row in logits)


def read_record(record: Path) -> tuple[dict[str, Any], list[FoldResult]]:
    """The header, its recipe as recipes are today, and the finished folds of a record; a last line cut off in the writing is
    left out, and of a fold judged twice (again, with select_on_test) the later one counts."""
    header, folds = _lines(record)
    try:
        results = [FoldResult(**_tuples(fold["fold"])) for fold in folds]
        return header | {"recipe": today(header.get("recipe"))}, list({(r.seed, r.subject): r for r in results}.values())
    except (KeyError, TypeError) as cause:
        raise ConfigError(f"{record} is not a record of an evaluation; name another file") from cause


def makers(record: Path, results: Iterable[FoldResult]) -> list[dict[str, Any]]:
    """What fitted these results of a record: every distinct commit with its versions, and how many `folds` it made.

    The commit of a fold from before this was kept is "unknown".
    """
    _, lines = _lines(record)
    told = {(line["fold"]["seed"], line["fold"]["subject"]): line.get("made_by") for line in lines}
    made = [told.get((result.seed, result.subject)) or {"commit": "unknown"} for result in results]
    distinct = [maker for number, maker in enumerate(made) if maker not in made[:number]]
    return [{"folds": made.count(maker), **maker} for maker in distinct]


def _lines(record: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
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
                raise ConfigError(f"{record} is not a record of an evaluation; name another file") from cause
            told = "take that line away, and its fold alone is judged anew"
            raise ConfigError(f"{record}, line {number}, is damaged; {told}") from cause
    try:
        header, *folds = found
        return dict(header["evaluation"]), folds
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{record} is not a record of an evaluation; name another file") from cause


def _tuples(fold: dict[str, Any]) -> dict[str, Any]:
    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list) else value

    return {name: frozen(value) for name, value in fold.items()}


def _header(recipe: Recipe, data: FlowMaps) -> dict[str, Any]:
    return {"recipe": recipe.model_dump(mode="json"), "maps": len(data), "data": digest(data)}


def digest(data: FlowMaps) -> str:
    """Tells one set of flow maps from another: maps, keypoints, labels, names and subjects in their order."""
    seen = hashlib.sha256()
    for array in (data.maps, data.keypoints, data.labels):
        seen.update(np.ascontiguousarray(array).tobytes())
    seen.update("\n".join((*data.names, *data.subjects)).encode())
    return seen.hexdigest()[:16]


def _opened(record: Path, header: dict[str, Any]) -> list[FoldResult]:
    if not _begun(record, header):
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
    whole = record.read_bytes()
    if not whole.endswith(b"\n"):
        record.write_bytes(whole[: whole.rindex(b"\n") + 1])
    return results


def _begun(record: Path, header: dict[str, Any]) -> bool:
    """Whether the record holds more than a first line that was cut off in the writing."""
    try:
        return not json.dumps({"evaluation": header}).encode().startswith(record.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as cause:
        raise ConfigError(f"the record {record} cannot be read: {cause.strerror}") from cause


def today(recipe: Any) -> Any:
    """A recorded recipe with what recipes have come to hold since, or as it is where it is none."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _append(record: Path, value: dict[str, Any]) -> None:
    try:
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as cause:
        raise OutputError(f"the record {record} cannot be written: {cause.strerror}") from cause


def _starts(
    recipe: Recipe, folder: Path, wanted: Sequence[tuple[int, Fold]], pool: Executor | None, progress: Progress
) -> dict[int, list[Path]]:
    """The pre-trained starts of each seed's members, made where they are not there yet."""
    seeds = list(dict.fromkeys(seed for seed, _ in wanted))
    if recipe.pretrain is None:
        return {seed: [] for seed in seeds}
    members = range(pretrained_members(recipe))
    work = [partial(_start, folder, recipe, seed, member) for seed in seeds for member in members]
    progress("pre-training", 0, len(work))
    for count, path in enumerate(each(pool, work), start=1):
        progress(path.stem, count, len(work))
    return {seed: [_start(folder, recipe, seed, member) for member in members] for seed in seeds}


def _start(folder: Path, recipe: Recipe, seed: int, member: int) -> Path:
    """A member's pre-trained start, made on one thread if it is not there."""
    import torch

    from training.pretrain import keep

    torch.set_num_threads(1)
    return keep(folder, recipe, seed, member)
