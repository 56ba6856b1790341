"""An archive of rendered videos, one of them long, analysed by a Ray cluster of three nodes on this machine, beside --jobs 2.

The head has no cores for work, the two others one each, so that both ways analyse two videos at once. Measured in turns: the
time of each, the cluster's nodes running already. Then nodes are killed (SIGKILL of all their processes) at a quarter and half
of the videos, others taking their places; the command is killed at half and called again; and the worker of one video is killed
each time that it opens it. Each time all results must equal those of one machine byte for byte.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from apexstream.clips import preset, write_clip
from apexstream.clips.spec import PHOTOS
from tests.ray_nodes import ENVIRONMENT, LocalNodes
from tests.soak.command import Record, command_line, finish, unmet

SMALL: dict[str, Any] = {"size": (320, 240), "eye_px": 64.0}
"""The clips' pictures: more of them can be analysed in the same time."""
LONG_S, PART_MINUTES = 200.0, 1.0
"""The length of the long video and of the parts in which it is analysed."""
MOST_OVERHEAD = 0.1
"""Of the cluster's time, beyond that of one machine."""
NOT_COMPARED = {"run.json", "index.html"}
"""Files that say when results were made, or the name of the folder that they are in."""
LINE = re.compile(r"\[(\d+)/(\d+)\]")


def render(folder: Path, count: int, seconds: float) -> Path:
    """So many clips in folders of videos, the last of them LONG_S long; those that are there stay."""
    for number in range(count):
        path = folder / f"s{number % 6}" / f"clip{number:02}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            photo = PHOTOS[number % len(PHOTOS)]
            length = LONG_S if number == count - 1 else seconds
            write_clip(preset("benchmark", photo=photo, seed=number, duration_s=length, **SMALL), path)
    return folder


@contextmanager
def analysing(videos: Path, out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, its lines to be read."""
    settings = out.parent / "settings.toml"
    settings.write_text(f"[reading]\npart_minutes = {PART_MINUTES}\n")
    command = [sys.executable, "-m", "apexstream", "analyze", str(videos), "--recursive", "--config", str(settings)]
    command += ["--out", str(out), *options]
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        yield process


def analysed(
    videos: Path, out: Path, *options: str, at: Mapping[int, Callable[[subprocess.Popen[str]], None]] | None = None
) -> tuple[float, list[str]]:
    """How long the command took, seconds, and its lines; at so many finished videos something is done."""
    started, lines, waiting = time.monotonic(), list[str](), dict(at or {})
    with analysing(videos, out, *options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            found = LINE.match(line)
            for number in [n for n in waiting if found and int(found[1]) >= n]:
                waiting.pop(number)(process)
    return time.monotonic() - started, lines


def differences(one: Path, other: Path) -> list[str]:
    """Files that are in one folder alone or differ, below both."""

    def names(folder: Path) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_COMPARED)
        return {path.relative_to(folder).as_posix() for path in files}

    both = names(one) & names(other)
    changed = {name for name in both if not filecmp.cmp(one / name, other / name, shallow=False)}
    return sorted((names(one) ^ names(other)) | changed)


def finished(lines: list[str]) -> int:
    """How many videos were analysed, by what was printed."""
    return sum(LINE.match(line) is not None for line in lines)


class WorkerKiller:
    """Kills each process of a cluster that opens the video."""

    def __init__(self, video: Path) -> None:
        self._video, self._ended, self.kills = str(video), threading.Event(), 0
        self.looked = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> WorkerKiller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            for process in psutil.process_iter(["name", "cmdline"]):
                try:
                    named = (process.info["cmdline"] or [""])[0]
                    if named.startswith("ray::Worker") and any(file.path == self._video for file in process.open_files()):
                        process.kill()
                        self.kills += 1
                except psutil.Error:
                    continue
            self.looked.set()


def main(
    *,
    videos: Annotated[int, typer.Option(min=8, help="Rendered videos.")] = 60,
    seconds: Annotated[float, typer.Option(help="Length of each but the long one.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is timed.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Folder for the videos, kept.", show_default=False)] = None,
    json: Record = None,
) -> None:
    """Compare, kill, compare."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as made, LocalNodes() as nodes:
        place = Path(made)
        source = render((folder or place / "videos").absolute(), videos, seconds)
        for cpus in (0, 1, 1):
            nodes.start(cpus)
        record, problems = measure(source, place, nodes, videos=videos, rounds=rounds, say=console.print)
    record = {"videos": videos, "seconds_each": seconds, **record}
    finish(record, problems, json)


def measure(
    source: Path, place: Path, nodes: LocalNodes, *, videos: int, rounds: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """All runs over the videos; the record, and what is not as it must be."""
    cluster, alone = ("--cluster", nodes.address), place / "alone"
    times: dict[str, list[float]] = {"jobs": [], "cluster": []}
    loads, equal = list[float](), dict[str, bool]()
    analysed(min(source.iterdir()), place / "warm", "--jobs", "1")
    shutil.rmtree(place / "warm")
    for _ in range(rounds):
        for name, options in (("jobs", ("--jobs", "2")), ("cluster", cluster)):
            loads.append(os.getloadavg()[0])
            out = alone if name == "jobs" else place / name
            shutil.rmtree(out, ignore_errors=True)
            took, lines = analysed(source, out, *options)
            times[name].append(round(took, 1))
            say(f"{name}: {finished(lines)} videos in {took:.1f} s")
        equal["cluster"] = not differences(alone, place / "cluster")
    killed = _with_nodes_killed(source, place, nodes, videos, say)
    resumed = _with_the_command_killed(source, place, nodes, videos, say)
    poisoned = _with_a_poisoned_video(source, place, nodes, videos, say)
    overhead = median(times["cluster"]) / median(times["jobs"]) - 1
    checks = {
        "the cluster's results differ from one machine's": not equal["cluster"],
        f"the cluster took over {MOST_OVERHEAD:.0%} longer": overhead >= MOST_OVERHEAD,
        "results differ after nodes were killed": bool(killed["different"]),
        "results differ after the command was killed": bool(resumed["different"]),
        "videos were analysed twice or not at all": {resumed["before"] + resumed["after"], killed["videos"]} != {videos},
        "a poisoned video did not fail alone": not poisoned["failed_alone"],
    }
    record = {
        "load_before_each": [round(load, 1) for load in loads],
        "seconds": times,
        "overhead": round(overhead, 3),
        "nodes_killed": killed,
        "command_killed": resumed,
        "poisoned": poisoned,
    }
    return record, unmet({sentence: not bad for sentence, bad in checks.items()})


def _with_nodes_killed(source: Path, place: Path, nodes: LocalNodes, videos: int, say: Callable[[str], None]) -> dict[str, Any]:
    replacing: list[threading.Thread] = []

    def replace(_: subprocess.Popen[str]) -> None:
        nodes.kill(nodes.nodes[1 + len(replacing)])
        replacing.append(threading.Thread(target=nodes.start, args=(1,)))
        replacing[-1].start()

    at = {videos // 4: replace, videos // 2: replace}
    took, lines = analysed(source, place / "killed", "--cluster", nodes.address, at=at)
    for thread in replacing:
        thread.join()
    different = differences(place / "alone", place / "killed")
    say(f"nodes killed: {finished(lines)} videos in {took:.1f} s, {len(different)} files differ")
    notes = [line for line in lines if "the node is gone" in line]
    return {"videos": finished(lines), "seconds": round(took, 1), "nodes_lost": len(notes), "different": different}


def _with_the_command_killed(
    source: Path, place: Path, nodes: LocalNodes, videos: int, say: Callable[[str], None]
) -> dict[str, Any]:
    out = place / "resumed"
    _, first = analysed(source, out, "--cluster", nodes.address, at={videos // 2: subprocess.Popen.kill})
    before = len([path for path in out.rglob("run.json") if '"finished": true' in path.read_text()])
    _, second = analysed(source, out, "--cluster", nodes.address)
    different = differences(place / "alone", out)
    say(f"command killed after {finished(first)}: {finished(second)} after it, {len(different)} files differ")
    return {"before": before, "after": finished(second), "different": different}


def _with_a_poisoned_video(
    source: Path, place: Path, nodes: LocalNodes, videos: int, say: Callable[[str], None]
) -> dict[str, Any]:
    poison = min(source.rglob("*.mp4"))
    with WorkerKiller(poison) as killer:
        _, lines = analysed(source, place / "poisoned", "--cluster", nodes.address)
    name = poison.relative_to(source).with_suffix("").as_posix()
    missing = [path for path in differences(place / "alone", place / "poisoned") if path != "summary.csv"]
    sentence = next((line for line in lines if "apexstream: error" in line), "")
    alone = finished(lines) == videos and bool(missing) and all(path.startswith(f"{name}/") for path in missing)
    say(f"poisoned: {sentence}")
    return {"kills": killer.kills, "sentence": sentence.replace(str(source), "VIDEOS"), "failed_alone": alone}


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
