"""From a spec to files: H.264, truth beside it, and a sheet of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from apexstream.clips.plan import plan
from apexstream.clips.render import Scene, render_frames
from apexstream.clips.spec import ClipSpec, Truth, truth_path
from engine.errors import OutputError
from engine.types import U8

TIME_BASE = Fraction(1, 90000)


def write_clip(spec: ClipSpec, path: Path, progress: Callable[[int], None] | None = None) -> Truth:
    """Render a clip to an H.264 file and its truth to PATH.truth.json (suffix replaced); calls progress frame by frame.

    Raises OutputError where the files cannot be written, InputError where the photograph is missing.
    """
    truth = plan(spec)
    encode(path, render_frames(spec), size=spec.size, fps=spec.fps, crf=spec.crf, progress=progress)
    truth.write(truth_path(path))
    return truth


def encode(
    path: Path,
    frames: Iterable[tuple[float, U8]],
    *,
    size: tuple[int, int],
    fps: float,
    crf: int | None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write (time in seconds, [H, W, 3] RGB) to an H.264 file with these times; size is (W, H), even. crf None: lossless.

    Calls progress with each frame's number. Raises OutputError where the file cannot be written.
    """
    import av

    try:
        container = av.open(str(path), "w")
        with container:
            stream = container.add_stream(
                "libx264rgb" if crf is None else "libx264", rate=Fraction(fps).limit_denominator(1001)
            )
            stream.width, stream.height = size
            stream.pix_fmt = "rgb24" if crf is None else "yuv420p"
            stream.codec_context.time_base = TIME_BASE
            stream.options = {"crf": str(crf or 0), "preset": "veryfast", "threads": "1"}
            for i, (t, pixels) in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = round(t / TIME_BASE), TIME_BASE
                container.mux(stream.encode(frame))
                if progress is not None:
                    progress(i)
            container.mux(stream.encode(None))
    except (OSError, ValueError, av.FFmpegError) as e:
        raise OutputError(
            f"the clip cannot be written to {path}: {e}; choose a writable place with a name ending in .mp4"
        ) from e


def contact_sheet(spec: ClipSpec, path: Path, columns: int = 4) -> None:
    """Write a PNG with a row for each of the first events: onset, halfway, apex, and apex less onset enlarged four times."""
    scene = Scene(spec)
    rows = [
        _row(scene, e.onset_frame, e.apex_frame, f"{e.kind} {e.action} {e.amplitude:.1f} px")
        for e in scene.truth.events[: columns * 2]
    ]
    rows += [
        _row(scene, int(np.abs(scene.times - b.start_t).argmin()), int(np.abs(scene.times - b.closed_t).argmin()), "blink")
        for b in scene.truth.blinks[:1]
    ]
    write_sheet(path, rows or [scene.frame(0)])


def _row(scene: Scene, start: int, peak: int, title: str) -> U8:
    w, h = scene.spec.size
    half = round(1.6 * scene.spec.eye_px)
    y, x = slice(max(0, h // 2 - half), h // 2 + half), slice(max(0, w // 2 - half), w // 2 + half)
    pictures = [scene.frame(i)[y, x] for i in (start, (start + peak) // 2, peak)]
    return sheet_row(title, pictures, pictures[0])


def sheet_row(title: str, pictures: Sequence[U8], before: U8) -> U8:
    """Pictures [H, W, 3] side by side, then the difference of the last one and of before, enlarged four times."""
    change = np.clip(128 + 4.0 * (pictures[-1].astype(float) - before), 0, 255).astype(np.uint8)
    row = np.hstack([*pictures, change])
    cv2.putText(row, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(row, np.uint8)


def write_sheet(path: Path, rows: list[U8]) -> None:
    """Write rows of pictures below each other as a PNG; raises OutputError where it cannot be written."""
    if not cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
        raise OutputError(f"the contact sheet cannot be written to {path}; choose a writable place with a name ending in .png")
