"""Make labelled clips: `python -m lab.make_clip --help`. The work is done in tools/clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from apexstream.clips import ClipSpec, IntoSpec, Truth, contact_sheet, plan, preset, put_into, render_frames, write_clip
from engine.errors import ApexError, InputError

__all__ = ["ClipSpec", "Truth", "contact_sheet", "main", "plan", "preset", "put_into", "render_frames", "write_clip"]

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


_FOR_INTO = {
    *("out", "into", "seed", "seconds", "events", "rate", "actions", "micro_px", "macro_px", "macro_fraction"),
    *("crf", "lossless", "sheet"),
}
"""Parameters that have a meaning with --into."""


@app.command()
def make(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The H.264 file to write; the truth goes to the same name with .truth.json.")],
    into: Annotated[
        Path | None, typer.Option(help="A video of a person to put expressions into, instead of rendering a photograph.")
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option(
            help="Which actions, separated by commas: brow_raise, brow_lower, smile, lip_depress, nose_wrinkle. All, but with "
            "--into brow_raise,brow_lower: speech moves the rest of the face too. nose_wrinkle cannot be put into a video."
        ),
    ] = None,
    photo: Annotated[
        str, typer.Option(help="hopper, astronaut, or a face reshaped from them: hopper-1 ... astronaut-4.")
    ] = "hopper",
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 30.0,
    seconds: Annotated[
        float | None, typer.Option(help="Length of the clip: 20, or with --into all of the video; more of it is not used.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random hangs on it; the same seed gives the same clip.")] = 0,
    start: Annotated[
        str, typer.Option("--preset", help="benchmark, harder, still_noisy (no expression) or clean (nothing else).")
    ] = "benchmark",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "640x360",
    eye_px: Annotated[float | None, typer.Option(help="Distance of the eyes in the frame, pixels.")] = None,
    events: Annotated[int | None, typer.Option(help="How many expressions (otherwise by --rate).")] = None,
    rate: Annotated[float | None, typer.Option(help="Expressions per minute.")] = None,
    micro_px: Annotated[
        str | None,
        typer.Option(
            help="LOW:HIGH peak motion of micro-expressions, px of the 128 px crop, each a hundredth of the distance of the "
            "outer eye corners (with --into 3.5:5.5)."
        ),
    ] = None,
    macro_px: Annotated[str | None, typer.Option(help="LOW:HIGH peak motion of macro-expressions (with --into 7:10).")] = None,
    macro_fraction: Annotated[float | None, typer.Option(help="Share of macro-expressions, 0 to 1.")] = None,
    blinks: Annotated[float | None, typer.Option(help="Blinks per minute.")] = None,
    sway: Annotated[float | None, typer.Option(help="Sway of the head, px of the frame.")] = None,
    roll: Annotated[float | None, typer.Option(help="Roll, degrees.")] = None,
    zoom: Annotated[float | None, typer.Option(help="Zoom to and fro, fraction.")] = None,
    yaw: Annotated[float | None, typer.Option(help="Turn left and right, degrees.")] = None,
    pitch: Annotated[float | None, typer.Option(help="Nod, degrees.")] = None,
    noise: Annotated[float | None, typer.Option(help="Sensor noise, grey levels.")] = None,
    flicker: Annotated[float | None, typer.Option(help="Flicker of the light, fraction.")] = None,
    flicker_hz: Annotated[float | None, typer.Option(help="Its frequency, Hz.")] = None,
    drift: Annotated[float | None, typer.Option(help="Slow drift of the light, fraction.")] = None,
    crf: Annotated[int | None, typer.Option(help="H.264 quality, 0 (best) to 51.")] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Store every pixel exactly.")] = False,
    vfr: Annotated[float | None, typer.Option(help="Variable frame rate: relative spread of the intervals, up to 0.5.")] = None,
    renderer: Annotated[str | None, typer.Option(help="warp-a (Gaussian windows) or warp-b (thin plate).")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--contact-sheet", help="Also write a PNG: onset, apex, difference; with --into what is put in."),
    ] = None,
) -> None:
    """Make a clip of facial expressions with known truth: rendered from a public-domain photograph, or a video of a person.

    Expressions of known onset, apex, offset, class and strength are warped into the face, among blinks, head motion, noise
    and compression; with --into, into what the video shows. The truth lies beside the clip as JSON.

    Example: python -m lab.make_clip --photo hopper --fps 30 --seconds 20 --seed 1 --out clip.mp4

    Example: python -m lab.make_clip --into talk.mp4 --rate 16 --seed 1 --out talk-with-events.mp4
    """
    ranges = {
        "micro_px": None if micro_px is None else _range(micro_px),
        "macro_px": None if macro_px is None else _range(macro_px),
    }
    if into is not None:
        _refuse_what_renders(context)
        asked: dict[str, Any] = {
            "seconds": seconds,
            "n_events": events,
            "events_per_minute": rate,
            "actions": None if actions is None else _actions(actions),
            "macro_fraction": macro_fraction,
            "crf": crf,
            **ranges,
        }
        put = IntoSpec(video=str(into), seed=seed, **{k: v for k, v in asked.items() if v is not None})
        _put(replace(put, crf=None) if lossless else put, out, sheet)
        return
    changes: dict[str, Any] = {
        "eye_px": eye_px,
        "n_events": events,
        "events_per_minute": rate,
        "macro_fraction": macro_fraction,
        "blinks_per_minute": blinks,
        "sway_px": sway,
        "roll_deg": roll,
        "zoom": zoom,
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "noise_sigma": noise,
        "flicker": flicker,
        "flicker_hz": flicker_hz,
        "drift": drift,
        "crf": crf,
        "vfr": vfr,
        "renderer": renderer,
        "actions": None if actions is None else _actions(actions),
        **ranges,
    }
    given = {k: v for k, v in changes.items() if v is not None}
    spec = preset(start, photo, fps, seed, 20.0 if seconds is None else seconds, size=_size(size), **given)
    spec = replace(spec, crf=None) if lossless else spec
    _write(spec, out, sheet)


def _actions(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse_what_renders(context: typer.Context) -> None:
    """Raises InputError for an option that has no meaning with --into."""
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name not in _FOR_INTO and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"{option.opts[0]} is for rendered clips; with --into the video stays as it is, so leave it out")


def _put(spec: IntoSpec, out: Path, sheet: Path | None) -> None:
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


def _write(spec: ClipSpec, out: Path, sheet: Path | None) -> None:
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
    """Run the command; what goes wrong is said in one sentence, exit code 1."""
    try:
        app()
    except ApexError as e:
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(1) from e


if __name__ == "__main__":
    main()
