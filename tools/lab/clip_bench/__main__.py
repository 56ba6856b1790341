"""`python -m lab.clip_bench`: the benchmarks on clips, their commands and options."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from apexstream.clips import PHOTOS, ClipSpec, preset
from apexstream.display import table_console
from engine.config import PipelineSettings, load_settings
from lab.clip_bench.jobs import RENDERER, Job, code_version
from lab.clip_bench.real.command import real
from lab.clip_bench.registration import measure, registration_summary
from lab.clip_bench.score import all_figures, compare, spotting_summary, still_summary
from lab.clip_bench.tables import (
    clip_line,
    confusion_table,
    miss_lines,
    registration_table,
    spotting_tables,
    still_table,
)
from lab.clip_bench.terminal import Results, end, make_folder, run_all, write_figures
from lab.clip_bench.watch import Watched, watch
from lab.command import run

FACES = "hopper,hopper-1,hopper-2,astronaut,astronaut-1,astronaut-2"

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def _about() -> None:
    """Measure the pipeline on rendered clips, whose truth is known exactly, or (real) on a folder of videos.

    A rendered clip is encoded as H.264, decoded like any other video and fed through the pipeline, in a worker process.
    With --out every finished clip is a line in a file, and a run that was stopped goes on from there.
    """


app.command()(real)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _faces(text: str) -> str:
    unknown = [name for name in _words(text) if name not in PHOTOS]
    if unknown or not _words(text):
        raise typer.BadParameter(f"there is no face {', '.join(unknown) or 'named'}; choose from {', '.join(PHOTOS)}")
    return text


def _rates(text: str) -> str:
    try:
        good = all(1 <= float(word) <= 1000 for word in _words(text)) and bool(_words(text))
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"{text!r} is no list of frame rates, such as 30,60,120")
    return text


def numbers(text: str) -> list[int]:
    """Whole numbers from a list with ranges: "1,4-6" is 1, 4, 5, 6. Raises typer.BadParameter for anything else."""
    out: list[int] = []
    try:
        for word in _words(text):
            low, _, high = word.partition("-")
            out += range(int(low), int(high or low) + 1)
    except ValueError:
        out = []
    if not out:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers, such as 1,2,3 or 1-3")
    return list(dict.fromkeys(out))


def _seeds(text: str) -> str:
    numbers(text)
    return text


Faces = Annotated[str, typer.Option(callback=_faces, metavar="NAME,...", help="Faces to render (see lab.make_clip --help).")]
Rates = Annotated[str, typer.Option("--fps", callback=_rates, metavar="N,...", help="Frame rates.")]
Seeds = Annotated[
    str,
    typer.Option(callback=_seeds, metavar="N,...", help="Seeds, such as 1,2,5-7; odd and even ones move the face differently."),
]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 is one a core.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE.jsonl", help="One line a clip is added here; clips already there are not run again."),
]
Summary = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the figures here as JSON.")]
Keep = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep the rendered clips in DIR, and use those that lie there already.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Settings of the pipeline, instead of its defaults.")]


@app.command()
def spotting(
    *,
    faces: Faces = FACES,
    fps: Rates = "30,60,120",
    seeds: Seeds = "101-103",
    seconds: Annotated[float, typer.Option(min=4, help="Length of a clip.")] = 20.0,
    start: Annotated[str, typer.Option("--preset", help="benchmark, harder or clean.")] = "benchmark",
    workers: Workers = 0,
    out: Out = None,
    summary: Summary = None,
    keep: Keep = None,
    config: Config = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every miss, false event and wrong class.")] = False,
) -> None:
    """How well expressions are found, named and timed.

    An event is right when its interval overlaps the true one by at least half (intersection over union).

    Example: python -m lab.clip_bench spotting --faces hopper,astronaut --fps 30 --seeds 1,2 --out spotting.jsonl --verbose
    """
    specs = _specs(start, faces, fps, numbers(seeds), seconds)
    results, clips, console = _watched(specs, verbose, workers=workers, out=out, keep=keep, config=config)
    figures = spotting_summary(clips)
    for table in (*spotting_tables(all_figures(clips)), confusion_table(figures["confusion"])):
        console.print(table)
    console.print(_common_line(figures) + f"; {figures['withdrawn']} provisional events withdrawn")
    write_figures(summary, results, {"benchmark": "spotting", "preset": start, **figures})
    end(results)


@app.command()
def still(
    *,
    faces: Faces = FACES,
    fps: Rates = "30",
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes for each face and frame rate.")] = 10.0,
    clip_seconds: Annotated[float, typer.Option(min=6, help="Length of a clip; each has a seed of its own.")] = 60.0,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first clip; the others count up.")] = 101,
    workers: Workers = 0,
    out: Out = None,
    summary: Summary = None,
    keep: Keep = None,
    config: Config = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every false event.")] = False,
) -> None:
    """How often an expression is reported on faces that show none, and how many blinks are taken for blinks.

    The faces sway, turn and blink under noise, flicker and compression.

    Example: python -m lab.clip_bench still --faces hopper,astronaut --minutes 2 --out still.jsonl
    """
    count = ceil(60 * minutes / clip_seconds)
    specs = _specs("still_noisy", faces, fps, range(first_seed, first_seed + count), 60 * minutes / count)
    results, clips, console = _watched(specs, verbose, workers=workers, out=out, keep=keep, config=config)
    figures = still_summary(clips)
    console.print(still_table(figures))
    console.print(_common_line(figures))
    write_figures(summary, results, {"benchmark": "still", **figures})
    end(results)


@app.command()
def registration(
    *,
    faces: Faces = FACES,
    fps: Rates = "30",
    seeds: Seeds = "101-103",
    seconds: Annotated[float, typer.Option(min=2, help="Length of a clip.")] = 20.0,
    workers: Workers = 0,
    out: Out = None,
    summary: Summary = None,
    keep: Keep = None,
    config: Config = None,
) -> None:
    """How still the crop of a still face is held, beside plain alignment on landmarks.

    The face sways, rolls, zooms and turns under noise and compression and shows nothing, no blink either. Measured on the true
    positions of facial points, and as flow between crops.

    Example: python -m lab.clip_bench registration --faces hopper --seeds 1 --seconds 10
    """
    specs = _specs("still_noisy", faces, fps, numbers(seeds), seconds, blinks_per_minute=0.0)

    def line(r: dict[str, Any]) -> str:
        ways = ", ".join(f"{way} {px['change_px']:.2f}" for way, px in r["ways"].items())
        return f"{r['photo']} {r['fps']:g} fps seed {r['seed']}: {ways} px"

    results = _run(specs, measure, line, workers=workers, out=out, keep=keep, config=config)
    figures = registration_summary(results.records)
    console = table_console()
    console.print(registration_table(figures))
    followed = f"{figures['followed']} of {figures['frames']} frames followed"
    console.print(f"clips: {figures['clips']}; {followed}; reference pictures: {figures['anchors']}")
    write_figures(summary, results, {"benchmark": "registration", **figures})
    end(results)


def _specs(start: str, faces: str, fps: str, seeds: Sequence[int], seconds: float, **changes: Any) -> list[ClipSpec]:
    return [
        preset(start, face, float(rate), seed, seconds, **changes)
        for face in _words(faces)
        for rate in _words(fps)
        for seed in seeds
    ]


def _watched(specs: Sequence[ClipSpec], verbose: bool, **options: Any) -> tuple[Results, list[Watched], Console]:
    """Clips watched, their misses and false events printed where verbose; and where further tables go."""
    results = _run(specs, watch, lambda record: clip_line(Watched.of(record)), **options)
    clips, console = [Watched.of(record) for record in results.records], table_console()
    for line in miss_lines(*compare(clips)) if verbose else ():
        console.print(line, soft_wrap=True, markup=False)
    return results, clips, console


def _run(
    specs: Sequence[ClipSpec],
    work: Callable[[Job], Any],
    line: Callable[[Any], str],
    *,
    workers: int,
    out: Path | None,
    keep: Path | None,
    config: Path | None,
) -> Results:
    settings = PipelineSettings() if config is None else load_settings(config)
    with tempfile.TemporaryDirectory(prefix="bench-clips-") as temporary:
        folder = Path(temporary) if keep is None else make_folder(keep, "--keep")
        renderer = code_version(RENDERER)
        jobs = [Job(spec, settings, folder, keep=keep is not None, renderer=renderer) for spec in specs]
        return run_all(jobs, work, line, workers=workers, out=out, version=code_version())


def _common_line(figures: dict[str, Any]) -> str:
    blinks = f"{figures['blinks_recognized']} blinks recognized of {figures['blinks_true']}"
    seen = f"face seen in {figures['frames_with_face']} of {figures['frames']} frames"
    return f"clips: {figures['clips']}, {figures['minutes']:g} minutes; {seen}; {blinks}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(app)
