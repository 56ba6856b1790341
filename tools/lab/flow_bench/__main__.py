"""TV-L1 flow measured against OpenCV's default solver, on a fixed set of rendered motions, both in one run.

python -m lab.flow_bench [--every N] [--threads N] [--cpu-time] [--backend cpu] [--batch 64] [--json]
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import partial
from typing import Annotated, cast

import cv2
import numpy as np
import typer

from engine.ops.backend import Backend
from engine.ops.tvl1 import tvl1
from lab.command import run
from lab.flow_bench.batch import batch_table, bench_batch
from lab.flow_bench.cases import SIDE, cases
from lab.flow_bench.compare import measure, report, table


def main(
    *,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth case only.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="OpenCV threads; 0 leaves its own choice.")] = 0,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="One OpenCV thread, and CPU time: for a machine that is busy with other work.")
    ] = False,
    backend: Annotated[str, typer.Option(help="Backend of tvl1: auto, reference, cpu or gpu.")] = "auto",
    batch: Annotated[int, typer.Option(min=0, help="Time this many pairs at once on the GPU, beside the floor.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare tvl1 with OpenCV's default TV-L1 on rendered motions: speed and endpoint error, in one run."""
    if threads or cpu_time:
        cv2.setNumThreads(1 if cpu_time else threads)
    clock = time.thread_time if cpu_time else time.perf_counter
    ours = partial(tvl1, backend=cast(Backend, backend))
    if batch:
        found = bench_batch(batch)
        typer.echo(json.dumps(found, indent=2) if as_json else batch_table(found))
        return
    ours(np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8))  # load before measuring
    rows = report([measure(case, ours, clock) for number, case in enumerate(cases()) if number % every == 0])
    typer.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else table(rows))


if __name__ == "__main__":
    run(main)
