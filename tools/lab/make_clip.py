"""Make labelled clips: `python -m lab.make_clip --help`. The work is done in apexstream.clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from apexstream.clips import ClipSpec, IntoSpec, contact_sheet, plan, preset, put_into, write_clip
from engine.errors import ApexError, InputError

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


Out = Annotated[Path, typer.Option(help="The H.264 file to write; the truth goes to the same name with .truth.json.")]
Into = Annotated[
    Path | None, typer.Option(help="A video of a person to put expressions into, instead of rendering a photograph.")
]
Actions = Annotated[
    str | None,
    typer.Option(
        help="Which actions, separated by commas: brow_raise, brow_lower, smile, lip_depress, nose_wrinkle. All, but with "
        "--into brow_raise,brow_lower: speech moves the rest of the face too. nose_wrinkle cannot be put into a video."
    ),
]
Photo = Annotated[str, typer.Option(help="hopper, astronaut, or a face reshaped from them: hopper-1 ... astronaut-4.")]
Fps = Annotated[float, typer.Option(help="Frames per second.")]
Seconds = Annotated[
    float | None, typer.Option(help="Length of the clip: 20, or with --into all of the video; more of it is not used.")
]
Seed = Annotated[int, typer.Option(help="Of everything random; the same seed gives the same clip.")]
Preset = Annotated[
    str, typer.Option("--preset", help="benchmark, harder, still_noisy (no expression) or clean (nothing else).")
]
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")]
EyePx = Annotated[float | None, typer.Option(help="Distance of the eyes in the frame, pixels.")]
Events = Annotated[int | None, typer.Option(help="How many expressions (otherwise by --rate).")]
Rate = Annotated[float | None, typer.Option(help="Expressions per minute.")]
MicroPx = Annotated[
    str | None,
    typer.Option(
        help="LOW:HIGH peak motion of micro-expressions, px of the 128 px crop, each a hundredth of the distance of the "
        "outer eye corners (with --into 3.5:5.5)."
    ),
]
MacroPx = Annotated[str | None, typer.Option(help="LOW:HIGH peak motion of macro-expressions (with --into 7:10).")]
MacroFraction = Annotated[float | None, typer.Option(help="Share of macro-expressions, 0 to 1.")]
Blinks = Annotated[float | None, typer.Option(help="Blinks per minute.")]
Sway = Annotated[float | None, typer.Option(help="Sway of the head, px of the frame.")]
Roll = Annotated[float | None, typer.Option(help="Roll, degrees.")]
Zoom = Annotated[float | None, typer.Option(help="Zoom in and out, fraction.")]
Yaw = Annotated[float | None, typer.Option(help="Turn left and right, degrees.")]
Pitch = Annotated[float | None, typer.Option(help="Nod, degrees.")]
Noise = Annotated[float | None, typer.Option(help="Sensor noise, grey levels.")]
Flicker = Annotated[float | None, typer.Option(help="Flicker of the light, fraction.")]
FlickerHz = Annotated[float | None, typer.Option(help="Its frequency, Hz.")]
Drift = Annotated[float | None, typer.Option(help="Slow drift of the light, fraction.")]
Crf = Annotated[int | None, typer.Option(help="H.264 quality, 0 (best) to 51.")]
Lossless = Annotated[bool, typer.Option("--lossless", help="Store every pixel exactly.")]
Vfr = Annotated[float | None, typer.Option(help="Variable frame rate: relative spread of the intervals, up to 0.5.")]
Renderer = Annotated[str | None, typer.Option(help="warp-a (Gaussian windows) or warp-b (thin plate).")]
Sheet = Annotated[
    Path | None, typer.Option("--contact-sheet", help="Also write a PNG: onset, apex, difference; with --into what is put in.")
]

FIELDS = {
    "events": "n_events",
    "rate": "events_per_minute",
    "blinks": "blinks_per_minute",
    "sway": "sway_px",
    "roll": "roll_deg",
}
FIELDS |= {"yaw": "yaw_deg", "pitch": "pitch_deg", "noise": "noise_sigma"}
FIELDS |= {name: name for name in ("actions", "micro_px", "macro_px", "macro_fraction", "crf")}
FIELDS |= {name: name for name in ("eye_px", "zoom", "flicker", "flicker_hz", "drift", "vfr", "renderer")}
"""Parameters of the command that are fields of a spec: parameter -> field."""
INTO_FIELDS = {f.name for f in fields(IntoSpec)}
INTO_ONLY = {"out", "into", "seed", "seconds", "lossless", "sheet"}
"""Parameters with a meaning for --into, beside those that are fields of IntoSpec."""


@app.command()
def make(
    context: typer.Context,
    *,
    out: Out,
    into: Into = None,
    actions: Actions = None,
    photo: Photo = "hopper",
    fps: Fps = 30.0,
    seconds: Seconds = None,
    seed: Seed = 0,
    start: Preset = "benchmark",
    size: Size = "640x360",
    eye_px: EyePx = None,
    events: Events = None,
    rate: Rate = None,
    micro_px: MicroPx = None,
    macro_px: MacroPx = None,
    macro_fraction: MacroFraction = None,
    blinks: Blinks = None,
    sway: Sway = None,
    roll: Roll = None,
    zoom: Zoom = None,
    yaw: Yaw = None,
    pitch: Pitch = None,
    noise: Noise = None,
    flicker: Flicker = None,
    flicker_hz: FlickerHz = None,
    drift: Drift = None,
    crf: Crf = None,
    lossless: Lossless = False,
    vfr: Vfr = None,
    renderer: Renderer = None,
    sheet: Sheet = None,
) -> None:
    """Make a clip of facial expressions with known truth: rendered from a public-domain photograph, or a video of a person.

    Expressions of known onset, apex, offset, class and strength are warped into the face, among blinks, head motion, noise
    and compression; with --into, into what the video shows. The truth lies beside the clip as JSON.

    Example: python -m lab.make_clip --photo hopper --fps 30 --seconds 20 --seed 1 --out clip.mp4

    Example: python -m lab.make_clip --into talk.mp4 --rate 16 --seed 1 --out talk-with-events.mp4
    """
    given = _given_fields(context.params)
    lossless_crf: dict[str, Any] = {"crf": None} if lossless else {}
    if into is not None:
        _refuse_rendering_options(context)
        length: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
        _inject(replace(IntoSpec(video=str(into), seed=seed, **length, **given), **lossless_crf), out, sheet)
    else:
        spec = preset(start, photo, fps, seed, 20.0 if seconds is None else seconds, size=_size(size), **given)
        _render(replace(spec, **lossless_crf), out, sheet)


def _given_fields(parameters: dict[str, Any]) -> dict[str, Any]:
    """Fields of a spec for those parameters that were given."""
    parsers: dict[str, Callable[[str], Any]] = {"actions": _actions, "micro_px": _range, "macro_px": _range}
    given = {name: value for name, value in parameters.items() if name in FIELDS and value is not None}
    return {FIELDS[name]: parsers[name](value) if name in parsers else value for name, value in given.items()}


def _actions(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse_rendering_options(context: typer.Context) -> None:
    """Raises InputError for an option that has no meaning with --into."""
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if (
            FIELDS.get(name) not in INTO_FIELDS
            and name not in INTO_ONLY
            and source is not None
            and source.name == "COMMANDLINE"
        ):
            raise InputError(f"{option.opts[0]} is for rendered clips; with --into the video stays as it is, so leave it out")


def _inject(spec: IntoSpec, out: Path, sheet: Path | None) -> None:
    from rich.console import Console
    from rich.progress import Progress

    if out.resolve() == Path(spec.video).resolve():
        raise InputError(f"{out} is the video itself; choose another name for --out")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {
            "following": bar.add_task("following the face", total=None),
            "writing": bar.add_task(f"writing {out.name}", total=None),
        }
        truth = put_into(spec, out, lambda name, done, total: bar.update(tasks[name], completed=done, total=total), sheet)
    console.print(f"{out}: {truth.frames} frames, {len(truth.events)} expressions put in")
    if sheet is not None:
        console.print(f"{sheet}: contact sheet")


def _render(spec: ClipSpec, out: Path, sheet: Path | None) -> None:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"rendering {out.name}", total=plan(spec).frames)
        truth = write_clip(spec, out, lambda i: bar.update(task, completed=i + 1))
    console.print(f"{out}: {truth.frames} frames, {len(truth.events)} expressions, {len(truth.blinks)} blinks")
    if sheet is not None:
        contact_sheet(spec, sheet)
        console.print(f"{sheet}: contact sheet")


def main() -> None:
    """Run the command; errors are one sentence and exit code 1."""
    try:
        app()
    except ApexError as e:
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(1) from e


if __name__ == "__main__":
    main()
