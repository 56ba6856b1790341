"""`apexstream bench`: speed of this machine against a baseline of the usual libraries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexstream.commands import check_target, say
from apexstream.commands.fetch import have_face_model
from apexstream.commands.options import number_of_processes
from apexstream.native_output import native_output_hidden
from engine.errors import ApexError

if TYPE_CHECKING:
    from apexstream.bench.report import Row

PARTS = ("stages", "whole", "live", "fast", "latency", "gpu")


@dataclass(frozen=True)
class Plan:
    """Seconds of clip and of watching, how many sources are tried, the processes that share them, and a video of the user's."""

    clip_s: float
    stage_frames: int
    watch_s: float
    fast_s: float
    latency_s: float
    counts: tuple[int, ...]
    processes: str = "auto"
    video: Path | None = None


FULL = Plan(clip_s=60, stage_frames=600, watch_s=12, fast_s=8, latency_s=60, counts=(1, 2, 3, 4, 5, 6, 8, 10, 12, 16))
QUICK = Plan(clip_s=15, stage_frames=150, watch_s=4, fast_s=3, latency_s=12, counts=(2, 5))


VideoOption = Annotated[
    Path | None,
    typer.Option("--video", metavar="FILE", exists=True, dir_okay=False, help="Analyse this video too.", show_default=False),
]


def bench(
    ctx: typer.Context,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A minute or two instead of ten; rougher figures.")] = False,
    parts: Annotated[
        str, typer.Option("--only", metavar=",".join(PARTS), help="Measure these alone.", show_default=False)
    ] = ",".join(PARTS),
    processes: Annotated[str, typer.Option("--processes", metavar="N", help="Of the live sources, as live takes it.")] = "auto",
    video: VideoOption = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.", show_default=False)
    ] = None,
    nice: Annotated[int, typer.Option("--nice", min=-20, max=19, help="Priority, on a machine with other work.")] = 0,
) -> None:
    """Measure each stage and the whole in one run, against a baseline of the usual libraries.

    Renders its own clips. The baseline is apexstream.bench.baseline: cv2.VideoCapture, MediaPipe's FaceLandmarker,
    OpenCV's TV-L1 and PyTorch eager on one thread, finding the same events. A video of your own (--video, with the part whole)
    is measured beside decoding and MediaPipe's mesh of every picture. Needs the extra bench.

    Example: apexstream bench --quick --json bench.json
    """
    wanted = [part.strip() for part in parts.split(",")]
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(PARTS)}", param_hint="--only")
    number_of_processes(processes)
    check_packages(wanted)
    import os

    from apexstream.bench import machine
    from apexstream.bench.report import table
    from apexstream.display import table_console

    if as_json is not None:
        check_target(as_json, "--json")
    if set(wanted) - {"gpu"}:
        have_face_model()
    if nice:
        os.nice(nice)
    found = machine.describe()
    rows: list[Row] = []
    failure: Exception | None = None
    with native_output_hidden(not ctx.obj["debug"]), tempfile.TemporaryDirectory(prefix="apexstream-bench-") as folder:
        plan = replace(QUICK if quick else FULL, processes=processes, video=video)
        try:
            rows.extend(measured(plan, wanted, Path(folder), lambda step: say(f"  {step} ...", err=True)))
        except Exception as error:  # noqa: BLE001 - raised again once what was measured until then is shown and written
            failure = error
    found["load_at_the_end"] = machine.load()
    if rows:
        table_console().print(table(rows, found))
    if as_json is not None and rows:
        options = [" --quick" * quick, f" --only {parts}" * (wanted != list(PARTS))]
        options += [f" --processes {processes}" * (processes != "auto"), f" --video {video.name}" if video else ""]
        command = "".join(["apexstream bench", *options, f" --nice {nice}" * bool(nice)])
        _write_record(as_json, {"command": command, "machine": found, "rows": [row.as_dict() for row in rows]})
    if failure is not None:
        raise failure


def _write_record(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def check_packages(parts: list[str]) -> None:
    """Raises ApexError that names the packages which the parts need and which are not installed."""
    needed = {"psutil"} | ({"skimage", "matplotlib"} if set(parts) - {"gpu"} else set())
    needed |= {"torch", "onnx", "mediapipe"} if {"stages", "whole"} & set(parts) else set()
    if missing := sorted(name for name in needed if find_spec(name) is None):
        raise ApexError(f"this measurement needs {', '.join(missing)}: pip install 'apexstream[bench]'")


def measured(plan: Plan, parts: list[str], folder: Path, progress: Callable[[str], None]) -> Iterator[Row]:
    """Row after row; progress is called with each step."""
    clips = _Clips(folder, progress)
    for part in PARTS:
        if part in parts:
            yield from _MEASURES[part](plan, clips, progress)


@dataclass(frozen=True)
class _Clips:
    """Clips, rendered once, when first asked for."""

    folder: Path
    progress: Callable[[str], None]

    def get(self, seconds: float, fps: float, size: tuple[int, int]) -> Path:
        from apexstream.clips import preset, write_clip

        path = self.folder / f"clip-{size[0]}x{size[1]}-{fps:g}-{seconds:g}.mp4"
        if not path.is_file():
            self.progress(f"rendering {seconds:g} s of {size[0]}x{size[1]} at {fps:g} frames/s")
            write_clip(preset("benchmark", "hopper", fps, seed=1, duration_s=seconds, size=size), path)
        return path


def _stages(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import stages
    from apexstream.bench.report import stage_row

    video = clips.get(plan.clip_s, 30, (640, 360))
    progress("each stage")
    yield from map(stage_row, stages.measure(video, plan.stage_frames))


def _whole(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import whole
    from apexstream.bench.report import whole_rows

    video = clips.get(plan.clip_s, 30, (640, 360))
    ours, baseline = [], []
    for time in ("", " once more"):
        progress(f"apexstream analyze{time}")
        ours.append(whole.ours(video))
        progress(f"the baseline script{time}")
        baseline.append(whole.baseline(video))
    yield from whole_rows(*(max(runs, key=lambda run: run.frames_per_s) for runs in (ours, baseline)))
    if plan.video is not None:
        yield from _own_video(plan.video, progress)


def _own_video(video: Path, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import whole
    from apexstream.bench.report import video_rows

    ours, mesh = [], []
    for turn in range(1, 4):
        progress(f"{video.name}: apexstream analyze, then the mesh of every picture ({turn} of 3)")
        ours.append(whole.ours(video))
        mesh.append(whole.baseline(video, mesh_alone=True))
    yield from video_rows(video.name, ours, mesh)


def _live(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import service
    from apexstream.bench.report import held_row

    video = clips.get(2.5 * plan.watch_s + 15, 30, (640, 480))
    progress(f"live sources, up to {max(plan.counts)}")

    def tried(load: service.Load) -> None:
        progress(f"{load.sources} sources: {load.drops} drops, {load.cores:g} cores busy")

    yield held_row(*service.most_held(video, 30, plan.watch_s, tried, plan.counts, processes=plan.processes))


def _fast(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import service
    from apexstream.bench.report import fast_rows

    video = clips.get(plan.fast_s + 2 * service.SETTLE_S, 200, (640, 480))
    progress("a source of 200 frames/s, on all cores and on one")
    places: tuple[tuple[str, int | None], ...] = (("all cores", None), ("one core", 0))
    yield from fast_rows(((where, service.watch(video, 1, plan.fast_s, core=core)) for where, core in places), 200)


def _latency(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import service
    from apexstream.bench.report import latency_rows

    video = clips.get(plan.latency_s, 30, (640, 480))
    progress(f"a clip of {plan.latency_s:g} s played in real time")
    yield from latency_rows(service.latency(video))


def _gpu(plan: Plan, clips: _Clips, progress: Callable[[str], None]) -> Iterator[Row]:
    from apexstream.bench import gpu

    progress("the GPU, if there is one")
    yield from gpu.rows()


_MEASURES: dict[str, Callable[[Plan, _Clips, Callable[[str], None]], Iterator[Row]]] = {
    "stages": _stages,
    "whole": _whole,
    "live": _live,
    "fast": _fast,
    "latency": _latency,
    "gpu": _gpu,
}
