"""Record the dashboard, as an animation or a still picture, while a rendered clip is played live.

python -m lab.demo_animation docs/pictures/demo.webp [--seconds N] [--fps N] [--seed N] [--after N]
python -m lab.demo_animation docs/pictures/dashboard.png --width 1280 --height 860 --after 8 --seconds 1

The page is the real one, in Chromium (Playwright), of a service started as `apexstream live CLIP --loop`. Each frame of the
animation is shown as long as it was on the page; a still picture is the last frame.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from apexstream.bench.live_process import LiveProcess
from apexstream.clips import preset, write_clip
from engine.errors import BackendError, OutputError
from lab.command import run

MOST_BYTES = 3_000_000
QUALITIES = (85, 75, 65, 55, 45)
"""Of WebP, tried in turn until the file is small enough."""
CLIP_S = 60.0
WAIT_MS = 120_000


@dataclass(frozen=True)
class Shot:
    """A screenshot, and the time since the first one in seconds."""

    t: float
    picture: Image.Image


@contextmanager
def dashboard(url: str, size: tuple[int, int]) -> Iterator[Page]:
    """The page of the service at url (http://HOST:PORT/), connected, in a headless Chromium of that size.

    Raises BackendError where Chromium is not installed.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise BackendError("Chromium was not found; install it (Debian: chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": size[0], "height": size[1]})
            page.set_default_timeout(WAIT_MS)
            page.goto(url)
            page.wait_for_selector("#link[data-state=live]")
            page.locator("#spans label", has_text="1 min").click()
            yield page
        finally:
            browser.close()


def capture(page: Page, seconds: float, fps: float) -> list[Shot]:
    """Screenshots of the page at fps a second, or as many as the machine can take."""
    shots: list[Shot] = []
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        shots.append(Shot(now, Image.open(BytesIO(page.screenshot())).convert("RGB")))
        page.wait_for_timeout(max(0.0, 1000 * (len(shots) / fps - (time.monotonic() - start))))
    return shots


def animation(shots: Sequence[Shot], end: float, most_bytes: int = MOST_BYTES) -> bytes:
    """The shots as a WebP that loops, at the best of QUALITIES that fits into most_bytes.

    end is when the last shot was replaced, in seconds like theirs. Raises OutputError where no quality fits.
    """
    times = [*(shot.t for shot in shots), end]
    durations = [round(1000 * (after - before)) for before, after in pairwise(times)]
    first, *others = (shot.picture for shot in shots)
    for quality in QUALITIES:
        data = BytesIO()
        first.save(data, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=quality, method=4)
        if data.tell() <= most_bytes:
            return data.getvalue()
    raise OutputError(f"the animation is larger than {most_bytes / 1e6:g} MB; record fewer --seconds or at a lower --fps")


def still(shots: Sequence[Shot]) -> bytes:
    """The last of the shots as a PNG."""
    data = BytesIO()
    shots[-1].picture.save(data, "PNG", optimize=True)
    return data.getvalue()


def record(*, seconds: float, fps: float, seed: int, after: int, size: tuple[int, int]) -> list[Shot]:
    """Render a clip, play it in a live service, and take screenshots of its page once `after` expressions are listed."""
    with tempfile.TemporaryDirectory(prefix="apexstream-animation-") as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(preset("benchmark", seed=seed, duration_s=CLIP_S), clip)
        with LiveProcess([str(clip)], "--loop") as service, dashboard("http" + service.url.removeprefix("ws"), size) as page:
            page.wait_for_selector(f"#rows tr:nth-child({after})" if after else ".figures:not(:empty)")
            return capture(page, seconds, fps)


def main(
    picture: Annotated[Path, typer.Argument(help="The file to write: .webp for an animation, .png for the last frame.")],
    *,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of the recording.")] = 14.0,
    fps: Annotated[float, typer.Option(min=1, max=15, help="Frames per second, at most.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Another number is another clip.")] = 0,
    after: Annotated[int, typer.Option(min=0, help="Start once this many expressions are listed.")] = 1,
    width: Annotated[int, typer.Option(min=320, help="Of the page, in pixels.")] = 900,
    height: Annotated[int, typer.Option(min=320, help="Of the page, in pixels.")] = 540,
) -> None:
    """Record the dashboard, as an animation or a still picture, while a rendered clip is played live."""
    shots = record(seconds=seconds, fps=fps, seed=seed, after=after, size=(width, height))
    data = still(shots) if picture.suffix == ".png" else animation(shots, seconds)
    try:
        picture.write_bytes(data)
    except OSError as error:
        raise OutputError(f"the picture {picture} cannot be written: {error.strerror}") from error
    typer.echo(f"{picture}: {len(data) / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
