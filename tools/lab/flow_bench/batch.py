"""A batch of flows on a GPU, timed beside the device's floor and OpenCV's default; `python -m lab.flow_bench --batch N`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from apexstream.bench.baseline import default_flow
from apexstream.bench.floor import Device, device_named, floor
from apexstream.bench.timing import gpu_median_ms, timed
from engine.errors import BackendError
from engine.ops.tvl1 import gpu, reference
from engine.types import F32
from lab.flow_bench.cases import SIDE, Case, cases, endpoint_errors

if TYPE_CHECKING:
    import torch

ROUNDS = 50
COMPARED = 8
"""Pairs of the batch that OpenCV and the reference solve too."""


def bench_batch(pairs: int) -> dict[str, Any]:
    """Solves `pairs` cases of the published set at once. Raises BackendError where there is no GPU.

    Times are in microseconds, the batch's as the median over rounds by the GPU's own clock; apart in pixels.
    """
    if (reason := gpu.refusal()) is not None:
        raise BackendError(f"A batch is timed on a GPU only: {reason}")
    import torch

    if not torch.cuda.is_available():
        raise BackendError("A batch is timed on a GPU only; interpreted kernels say nothing about speed")
    name = torch.cuda.get_device_name()
    chosen = list(islice(cycle(cases()), 7, 7 + 7 * pairs, 7))
    fixed, moving = (np.stack([getattr(c, which) for c in chosen]).astype(np.float32) for which in ("fixed", "moving"))
    on_device = torch.from_numpy(fixed).cuda(), torch.from_numpy(moving).cuda()
    flow = gpu.solve_batch(*on_device)
    batch_us = _median_us(lambda: gpu.solve_batch(*on_device))
    upload_us = _median_us(lambda: gpu.solve_arrays(fixed, moving))
    return _report(name, device_named(name), chosen, flow.cpu().numpy(), (batch_us, upload_us, *_candidates(*on_device)))


def _candidates(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """Microseconds from crops to the shipped network's inputs on the device, and on to its probabilities in host memory."""
    from engine.mesh import MESH_POINTS
    from engine.recognition.flowmap_gpu import network_inputs
    from engine.runtime import load
    from engine.weights import default_weights, load_card

    rng = np.random.default_rng(0)  # points anywhere will do: the arithmetic is the same
    mesh = rng.uniform(0, SIDE, (len(before), MESH_POINTS, 3)).astype(np.float32)
    kind, runner = load_card().input, load(default_weights())

    def inputs() -> torch.Tensor:
        made: torch.Tensor = network_inputs(kind, before, after, mesh).inputs
        return made

    return _median_us(inputs), _median_us(lambda: runner(inputs().cpu().numpy()))


def _report(
    name: str, device: Device | None, chosen: list[Case], flow: F32, times: tuple[float, float, float, float]
) -> dict[str, Any]:
    batch_us, upload_us, inputs_us, answer_us = times
    few = list(zip(chosen, flow, strict=True))[:COMPARED]
    apart = np.abs([f - reference.solve(c.fixed.astype(np.float32), c.moving.astype(np.float32)) for c, f in few])
    runs = [timed(partial(default_flow, c.fixed, c.moving), time.perf_counter) for c, _ in few]
    opencv_us = float(np.median([seconds for seconds, _ in runs])) * 1e6
    least = floor(device, len(chosen), SIDE, SIDE) if device else None
    return {
        "device": name,
        "pairs": len(chosen),
        "batch_us": batch_us,
        "upload_us": upload_us,
        "inputs_us": inputs_us,
        "answer_us": answer_us,
        "memory_floor_us": least.memory * 1e6 if least else None,
        "arithmetic_floor_us": least.arithmetic * 1e6 if least else None,
        "times_floor": batch_us / (least.seconds * 1e6) if least else None,
        "opencv_us_per_pair": opencv_us,
        "times_opencv": opencv_us * len(chosen) / batch_us,
        "apart_mean": float(apart.mean()),
        "apart_max": float(apart.max()),
        "error_mean": float(np.mean([endpoint_errors(f, c.truth).mean for c, f in few])),
        "opencv_error_mean": float(
            np.mean([endpoint_errors(f, c.truth).mean for (_, f), (c, _) in zip(runs, few, strict=True)])
        ),
    }


def _median_us(call: Callable[[], object]) -> float:
    return 1000 * gpu_median_ms(call, ROUNDS)


def batch_table(report: Mapping[str, Any]) -> str:
    """The report as a markdown table."""
    least = "unknown (no entry in tools/apexstream/bench/floor.py)"
    if report["times_floor"] is not None:
        least = f"{report['memory_floor_us']:.1f} memory, {report['arithmetic_floor_us']:.1f} arithmetic"
    times = "" if report["times_floor"] is None else f" ({report['times_floor']:.1f} x the floor)"
    rows = [
        ("device", report["device"]),
        ("batch, pictures and flow on the device", f"{report['batch_us']:.0f} us for {report['pairs']} pairs{times}"),
        ("the same from and to the host's memory", f"{report['upload_us']:.0f} us"),
        ("from crops to the network's inputs, on the device", f"{report['inputs_us']:.0f} us"),
        ("from crops to probabilities", f"{report['answer_us']:.0f} us"),
        ("floor, us", least),
        (
            "OpenCV's default on this host's CPU",
            f"{report['opencv_us_per_pair']:.0f} us a pair; {report['times_opencv']:.0f} x",
        ),
        ("apart from the reference, px", f"mean {report['apart_mean']:.2g}, greatest {report['apart_max']:.2g}"),
        ("endpoint error, px", f"OpenCV {report['opencv_error_mean']:.3f} → {report['error_mean']:.3f}"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows)])
