"""Make labelled clips: `python -m lab.make_clip --help`. The work is done in apexstream.clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from apexstream.clips import ClipSpec, IntoSpec, contact_sheet, plan, preset, put_into, write_clip
from engine.errors import InputError
from lab.command import run

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def _range(text: str) -> tuple[float, float]:
    try:
        low, _, high = text.partition(":")
        return float(low), float(high or low)
    except ValueError as e:
        raise typer.BadParameter(f"{text!r} is not LOW:HIGH, such as 1:3") from e


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = text.lower().split("x")
        return int(width), int(height)
    except ValueError as e:
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, such as 640x360") from e


def _actions(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


PARSERS: dict[str, Callable[[str], Any]] = {"actions": _actions, "micro_px": _range, "macro_px": _range, "size": _size}
RENDERED_ONLY = {f.name for f in fields(ClipSpec)} - {f.name for f in fields(IntoSpec)} | {"start"}
"""Parameters without a meaning for --into."""


ActionsOption = Annotated[
    str | None,
    typer.Option(
        help="Which actions, separated by commas: brow_raise, brow_lower, smile, lip_depress, nose_wrinkle. All, but with "
        "--into brow_raise,brow_lower: speech moves the rest of the face too. nose_wrinkle cannot be put into a video."
    ),
]
MicroOption = Annotated[
    str | None,
    typer.Option(
        help="LOW:HIGH peak motion of micro-expressions, px of the 128 px crop, each a hundredth of the distance of the "
        "outer eye corners (with --into 3.5:5.5)."
    ),
]
SecondsOption = Annotated[
    float | None, typer.Option(help="Length of the clip: 20, or with --into all of the video; more of it is not used.")
]
SheetOption = Annotated[
    Path | None,
    typer.Option("--contact-sheet", help="Also write a PNG: onset, apex, difference; with --into what is put in."),
]


@app.command()
def make(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The H.264 file to write; the truth goes to the same name with .truth.json.")],
    into: Annotated[
        Path | None, typer.Option(help="A video of a person to put expressions into, instead of rendering a photograph.")
    ] = None,
    actions: ActionsOption = None,
    photo: Annotated[
        str, typer.Option(help="hopper, astronaut, or a face reshaped from them: hopper-1 ... astronaut-4.")
    ] = "hopper",
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 30.0,
    seconds: SecondsOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random; the same seed gives the same clip.")] = 0,
    start: Annotated[
        str, typer.Option("--preset", help="benchmark, harder, still_noisy (no expression) or clean (nothing else).")
    ] = "benchmark",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "640x360",
    eye_px: Annotated[float | None, typer.Option(help="Distance of the eyes in the frame, pixels.")] = None,
    n_events: Annotated[int | None, typer.Option("--events", help="How many expressions (otherwise by --rate).")] = None,
    events_per_minute: Annotated[float | None, typer.Option("--rate", help="Expressions per minute.")] = None,
    micro_px: MicroOption = None,
    macro_px: Annotated[str | None, typer.Option(help="LOW:HIGH peak motion of macro-expressions (with --into 7:10).")] = None,
    macro_fraction: Annotated[float | None, typer.Option(help="Share of macro-expressions, 0 to 1.")] = None,
    blinks_per_minute: Annotated[float | None, typer.Option("--blinks", help="Blinks per minute.")] = None,
    sway_px: Annotated[float | None, typer.Option("--sway", help="Sway of the head, px of the frame.")] = None,
    roll_deg: Annotated[float | None, typer.Option("--roll", help="Roll, degrees.")] = None,
    zoom: Annotated[float | None, typer.Option(help="Zoom in and out, fraction.")] = None,
    yaw_deg: Annotated[float | None, typer.Option("--yaw", help="Turn left and right, degrees.")] = None,
    pitch_deg: Annotated[float | None, typer.Option("--pitch", help="Nod, degrees.")] = None,
    noise_sigma: Annotated[float | None, typer.Option("--noise", help="Sensor noise, grey levels.")] = None,
    flicker: Annotated[float | None, typer.Option(help="Flicker of the light, fraction.")] = None,
    flicker_hz: Annotated[float | None, typer.Option(help="Its frequency, Hz.")] = None,
    drift: Annotated[float | None, typer.Option(help="Slow drift of the light, fraction.")] = None,
    crf: Annotated[int | None, typer.Option(help="H.264 quality, 0 (best) to 51.")] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Store every pixel exactly.")] = False,
    vfr: Annotated[float | None, typer.Option(help="Variable frame rate: relative spread of the intervals, up to 0.5.")] = None,
    renderer: Annotated[str | None, typer.Option(help="warp-a (Gaussian windows) or warp-b (thin plate).")] = None,
    sheet: SheetOption = None,
) -> None:
    """Make a clip of facial expressions with known truth: rendered from a public-domain photograph, or a video of a person.

    Expressions of known onset, apex, offset, class and strength are warped into the face, among blinks, head motion, noise
    and compression; with --into, into what the video shows. The truth lies beside the clip as JSON.

    Example: python -m lab.make_clip --photo hopper --fps 30 --seconds 20 --seed 1 --out clip.mp4

    Example: python -m lab.make_clip --into talk.mp4 --rate 16 --seed 1 --out talk-with-events.mp4
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        if into is not None:
            _refuse_rendering_options(context)
            made = _inject(IntoSpec(video=str(into), **_given(context.params, IntoSpec)), out, sheet, bar)
        else:
            length = 20.0 if seconds is None else seconds
            made = _render(preset(start, duration_s=length, **_given(context.params, ClipSpec)), out, sheet, bar)
    console.print(f"{out}: {made}")
    if sheet is not None:
        console.print(f"{sheet}: contact sheet")


def _given(parameters: dict[str, Any], spec: type[ClipSpec | IntoSpec]) -> dict[str, Any]:
    """Those fields of a spec that were given."""
    names = {f.name for f in fields(spec)}
    given = {name: value for name, value in parameters.items() if name in names and value is not None}
    given |= {name: parse(given[name]) for name, parse in PARSERS.items() if name in given}
    return {**given, "crf": None} if parameters["lossless"] else given


def _refuse_rendering_options(context: typer.Context) -> None:
    """Raises InputError for an option that has no meaning with --into."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in RENDERED_ONLY and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"{option.opts[0]} is for rendered clips; with --into the video stays as it is, so leave it out")


def _inject(spec: IntoSpec, out: Path, sheet: Path | None, bar: Progress) -> str:
    if out.resolve() == Path(spec.video).resolve():
        raise InputError(f"{out} is the video itself; choose another name for --out")
    labels = {"following": "following the face", "writing": f"writing {out.name}"}
    tasks = {name: bar.add_task(label, total=None) for name, label in labels.items()}
    truth = put_into(spec, out, lambda name, done, total: bar.update(tasks[name], completed=done, total=total), sheet)
    return f"{truth.frames} frames, {len(truth.events)} expressions put in"


def _render(spec: ClipSpec, out: Path, sheet: Path | None, bar: Progress) -> str:
    task = bar.add_task(f"rendering {out.name}", total=plan(spec).frames)
    truth = write_clip(spec, out, lambda i: bar.update(task, completed=i + 1))
    if sheet is not None:
        contact_sheet(spec, sheet)
    return f"{truth.frames} frames, {len(truth.events)} expressions, {len(truth.blinks)} blinks"


if __name__ == "__main__":
    run(app)
