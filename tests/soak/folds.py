"""Clips prepared and folds fitted by a Ray cluster on this machine, while nodes and the command itself are killed.

Three nodes: the head has no cores, the two others one each, and declare a GPU that is not there. `prepare` makes the maps of a
rendered database, `evaluate` fits a small recipe to them; first by one process, then by the cluster, where a node is killed
(SIGKILL of all its processes, another taking its place) after a quarter of the clips or folds and the command after half, and
the command is called again. Then `evaluate --device cuda` fits stacks of folds, the CPU in place of the GPUs, first left alone,
then with a node killed once the pre-trained starts are there. Each time all that was made must equal what was made undisturbed:
maps and tables byte for byte, the record but for the time that each fold took and its order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tests.databases import write_casme3
from tests.ray_nodes import ENVIRONMENT, LocalNodes
from tests.soak.cluster import differences
from tests.soak.command import Record, command_line, finish, unmet

RECIPE = """name = "small"
[model]
name = "ahmsa"
members = 2
options = { width = 8, heads = 2, repeats = [1, 1, 1] }
[fit]
epochs = 4
batch = 8
learning_rate = 1e-3
[pretrain]
maps = 200
epochs = 2
batch = 50
learning_rate = 1e-3
members = 1
[kernel]
share = 0.3
"""
ACTIONS: Any = (("smile", "happy"), ("brow_lower", "anger"), ("brow_raise", "surprise"))
SEEDS, GROUPS = 2, 8
FOLDS = SEEDS * GROUPS
PROGRAM = "from apexstream.cluster import folds; from apexstream.cli import main; folds.GPU = 'cpu'; main()"
"""The command, with the CPU in place of GPUs."""

Kill = Callable[[subprocess.Popen[str]], None]


def called(arguments: Sequence[str], count: Callable[[], int], at: Mapping[int, Kill]) -> tuple[float, str]:
    """How long the command took, seconds, and what it said; once count reaches a number, something is done."""
    started, waiting = time.monotonic(), dict(at)
    ended = threading.Event()
    command, environment = [sys.executable, "-c", PROGRAM, *arguments], {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:

        def watch() -> None:
            while waiting and not ended.wait(0.02):
                for number in [n for n in waiting if count() >= n]:
                    waiting.pop(number)(process)

        watching = threading.Thread(target=watch)
        watching.start()
        said, _ = process.communicate()
        ended.set()
        watching.join()
    return round(time.monotonic() - started, 1), said


def lines(path: Path) -> list[str]:
    """Those of a file of `evaluate` without the seconds that fitting took, in one order; none where there is no such file."""
    if not path.is_file():
        return []
    return sorted(re.sub(r'"seconds": [0-9.]+', "", line) for line in path.read_text(encoding="utf-8").splitlines())


def unequal(one: Path, other: Path) -> list[str]:
    """What differs between two folders of `evaluate`; run.json and the page say when they were made."""
    names = "folds.jsonl", "summary.json", "predictions.csv", "recipe.json"
    return [name for name in names if not lines(one / name) or lines(one / name) != lines(other / name)]


class Nodes(LocalNodes):
    """The cluster, and how many of its nodes were killed."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[threading.Thread] = []

    def start_all(self) -> None:
        """The head and two others."""
        self.start(0)
        self.start(1, gpus=1)
        self.start(1, gpus=1)

    def replace(self, _: subprocess.Popen[str]) -> None:
        """Kill the oldest node but the head; another takes its place."""
        self.kill(self.nodes[1 + len(self.replaced)])
        self.replaced.append(threading.Thread(target=partial(self.start, 1, gpus=1)))
        self.replaced[-1].start()

    def whole(self) -> None:
        """Wait until all nodes are there."""
        for thread in self.replaced:
            thread.join()


def main(
    *,
    subjects: Annotated[int, typer.Option(min=GROUPS, help="Of three clips each.")] = 40,
    json: Record = None,
) -> None:
    """Compare, kill, compare."""
    say = Console(stderr=True).print
    with tempfile.TemporaryDirectory() as made, Nodes() as nodes:
        place = Path(made)
        films = [(f"sub{n:02}", action, action, emotion) for n in range(subjects) for action, emotion in ACTIONS]
        source = write_casme3(place / "source", films)
        (place / "small.toml").write_text(RECIPE, encoding="utf-8")
        nodes.start_all()
        clips = _clips(source, place, nodes, len(films))
        say(f"clips: {clips}")
        folds = _folds(place, nodes)
        say(f"folds: {folds}")
        stacks = _stacks(place, nodes)
        say(f"stacks: {stacks}")
    checks = {
        "maps differ": not clips["different"],
        "clips are missing": clips["made"] == [len(films)] * 2,
        "folds differ": not folds["different"],
        "folds were fitted twice or not at all": folds["made"] == [FOLDS] * 2,
        "stacks differ": not stacks["different"],
        "no node was lost": all(part["nodes_lost"] for part in (clips, folds, stacks)),
    }
    finish({"clips": clips, "folds": folds, "stacks": stacks, "nodes_killed": len(nodes.replaced)}, unmet(checks), json)


def _disturbed(arguments: Sequence[str], count: Callable[[], int], items: int, nodes: Nodes) -> dict[str, Any]:
    """Both calls: killed, and gone on with."""
    at: dict[int, Kill] = {items // 4: nodes.replace, items // 2: subprocess.Popen.kill}
    _, said = called(arguments, count, at)
    before = count()
    nodes.whole()
    seconds, _ = called(arguments, count, {})
    return {"when_killed": before, "nodes_lost": said.count("the node is gone"), "seconds_of_the_rest": seconds}


def _count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


def _clips(source: Path, place: Path, nodes: Nodes, clips: int) -> dict[str, Any]:
    def arguments(out: Path) -> list[str]:
        return ["prepare", "casme3", str(source), "--out", str(out)]

    alone, cluster = place / "maps", place / "maps-cluster"
    maps = cluster / "casme3" / "maps"
    seconds, _ = called(arguments(alone), lambda: 0, {})
    found = _disturbed([*arguments(cluster), "--cluster", nodes.address], partial(_count, maps, "[!.]*"), clips, nodes)
    return {
        "made": [_count(alone / "casme3" / "maps", "[!.]*"), _count(maps, "[!.]*")],
        "seconds_alone": seconds,
        **found,
        "different": differences(alone, cluster),
    }


def _arguments(place: Path, out: str, *options: str) -> list[str]:
    given = ["--config", str(place / "small.toml"), "--data", str(place / "maps"), "--out", str(place / out)]
    return ["evaluate", *given, "--seeds", str(SEEDS), "--groups", str(GROUPS), *options]


def _made(out: Path) -> int:
    return max(0, len(lines(out / "folds.jsonl")) - 1)


def _folds(place: Path, nodes: Nodes) -> dict[str, Any]:
    alone, cluster = place / "alone", place / "cluster"
    seconds, _ = called(_arguments(place, "alone", "--device", "cpu"), lambda: 0, {})
    options = "--device", "cpu", "--cluster", nodes.address
    found = _disturbed(_arguments(place, "cluster", *options), partial(_made, cluster), FOLDS, nodes)
    made = [_made(alone), _made(cluster)]
    return {"made": made, "seconds_alone": seconds, **found, "different": unequal(alone, cluster)}


def _stacks(place: Path, nodes: Nodes) -> dict[str, Any]:
    """The same stacks both times, as the cluster has as many GPUs when each call begins."""
    nodes.whole()
    options = "--device", "cuda", "--cluster", nodes.address
    seconds, _ = called(_arguments(place, "stacks", *options), lambda: 0, {})
    out = place / "stacks-killed"
    starts = partial(_count, out, "start-*.pt")
    killed, said = called(_arguments(place, "stacks-killed", *options), starts, {SEEDS: nodes.replace})
    nodes.whole()
    times = {"seconds": seconds, "seconds_killed": killed, "nodes_lost": said.count("the node is gone")}
    return {"made": [_made(place / "stacks"), _made(out)], **times, "different": unequal(place / "stacks", out)}


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
