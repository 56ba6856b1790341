"""A database's pictures -> prepared flow maps: several clips at once, continuing where a stopped run was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from engine.errors import InputError
from training.datasets.clips import Clip, Database, LeftOut, find_table
from training.datasets.flow import ClipFlow, FlowMaker
from training.datasets.pictures import ClipFolder, PictureFolders
from training.datasets.prepared import Store
from training.pool import OpenPool, each, processes

Task = tuple[Clip, ClipFolder]

Progress = Callable[[int, int, str | None], None]
"""Called at the start and after each clip: clips done, all clips, the newest one's name."""


@dataclass(frozen=True)
class Outcome:
    """The result of a preparation: the folder, each clip with its flow, what was left out and why, notes on decisions."""

    folder: Path
    made: tuple[tuple[Clip, ClipFlow], ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def prepare(
    database: Database,
    root: Path,
    out: Path,
    *,
    annotations: Path | None = None,
    jobs: int = 1,
    open_pool: OpenPool | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Make the flow maps of all clips below root into out/<database>; maps that an earlier run made there are kept.

    annotations is the table, searched in root (also two folders deep, and next to root) where it is None. jobs clips are made
    at once, each in a process with one thread, started by open_pool where it is given. Clips without usable pictures are left
    out and listed. Raises InputError for a table that cannot be read, a root without any of the clips, or a folder of another
    version; OutputError where out cannot be written; ApexError where a worker process dies.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; the pictures of {database.title} are expected below it")
    annotation = database.read(annotations or find_table(database, root))
    tasks, left_out = _located(annotation.clips, PictureFolders(root, database))
    if not tasks:
        raise InputError(f"none of the {len(annotation.clips)} clips is below {root}; {database.title} is {database.example}")
    store = Store(out / database.name)
    store.mark_unfinished()
    made = {clip.key: flow for clip, source in tasks if (flow := store.get(clip, source)) is not None}
    wanted = [task for task in tasks if task[0].key not in made]
    done = len(tasks) - len(wanted)
    if progress:
        progress(done, len(tasks), None)
    for (clip, source), result in _results(wanted, jobs, open_pool):
        done += 1
        if isinstance(result, str):
            left_out.append(LeftOut(clip.key, "pictures", result))
        else:
            store.put(clip, source, result)
            made[clip.key] = result
        if progress:
            progress(done, len(tasks), clip.key)
    kept = tuple((clip, made[clip.key]) for clip in annotation.clips if clip.key in made)
    order = {clip.key: number for number, clip in enumerate(annotation.clips)}
    lost = sorted(left_out, key=lambda one: order[one.name])
    store.finish(kept, (*annotation.left_out, *lost))
    return Outcome(store.folder, kept, (*annotation.left_out, *lost), annotation.notes)


def _located(clips: Sequence[Clip], folders: PictureFolders) -> tuple[list[Task], list[LeftOut]]:
    tasks, absent = [], []
    for clip in clips:
        try:
            tasks.append((clip, folders.find(clip)))
        except InputError as error:
            absent.append(LeftOut(clip.key, "pictures", str(error)))
    return tasks, absent


def _work(maker: FlowMaker, task: Task) -> ClipFlow | str:
    try:
        return maker.make(*task)
    except InputError as error:
        return str(error)


def _results(tasks: Sequence[Task], jobs: int, open_pool: OpenPool | None) -> Iterator[tuple[Task, ClipFlow | str]]:
    if open_pool is None and (jobs == 1 or len(tasks) < 2):
        with FlowMaker() as maker:
            yield from ((task, _work(maker, task)) for task in tasks)
        return
    if not tasks:
        return
    with (open_pool or processes)(jobs, len(tasks), _start_worker) as pool:
        yield from each(pool, [partial(_work_in_worker, task) for task in tasks])


_makers: list[FlowMaker] = []
"""In a worker process: its own maker."""


def _work_in_worker(task: Task) -> tuple[Task, ClipFlow | str]:
    return task, _work(_makers[0], task)


def _start_worker() -> None:
    """One thread of OpenCV, and the models, loaded once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    _makers.append(FlowMaker())
