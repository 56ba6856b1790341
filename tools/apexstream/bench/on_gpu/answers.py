"""The time from crops to network inputs, and on to probabilities with each backend that opens, by the GPU's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from apexstream.bench.on_gpu.check import Check, Entry, Job, SkippedError
from apexstream.bench.on_gpu.pictures import moved_pairs, scattered_meshes
from apexstream.bench.on_gpu.speed import BUFFERS, ROUNDS, needs_gpu
from apexstream.bench.timing import gpu_median_ms, in_turns
from engine.errors import BackendError
from engine.geometry import CROP_SIDE
from engine.ops import device
from training.provenance import ROOT

if TYPE_CHECKING:
    from engine.runtime import Runner

CANDIDATES = (64, 1, 8)
BACKENDS = ("torch-cuda", "tensorrt", "cuda", "tensorrt-rtx", "ort", "eager")
"""In order of what a borrowed GPU's time is worth: the first needs no more than PyTorch."""
APART = 0.02
"""Of a probability: half precision may move it so far."""
WEIGHTS = ROOT / "engine" / "weights" / "ahmsa-3db.onnx"
"""The network that comes with the project; `engine.weights` names it too, and needs pydantic."""


def inputs(job: Job, number: int) -> Entry:
    """Crops and meshes to a network's inputs on the device: from the device's memory, and from the host's."""
    needs_gpu()
    on_device, in_host = (_median_us([_inputs(number, seed, host) for seed in range(BUFFERS)]) for host in (False, True))
    return {"from_device_us": on_device, "from_host_us": in_host, "us_a_candidate": round(in_host / number, 2)}


def chain(job: Job, backend: str) -> Entry:
    """Crops to probabilities in host memory by one backend, and how far they are from PyTorch's on the CPU."""
    needs_gpu()
    from engine.runtime import load
    from engine.runtime.eager import EagerRunner

    try:
        runner = load(WEIGHTS, backend=backend)  # type: ignore[arg-type]
    except BackendError as reason:
        raise SkippedError(str(reason)) from reason
    makers = [_inputs(CANDIDATES[0], seed, True) for seed in range(BUFFERS)]
    answers = [partial(_answers, runner, make) for make in makers]
    us = _median_us(answers)
    apart = float(np.abs(answers[0]() - EagerRunner(WEIGHTS)(makers[0]().cpu().numpy())).max())
    return {
        "runner": runner.device,
        "candidates": CANDIDATES[0],
        "median_us": us,
        "greatest_apart": apart,
        "right": apart < APART and runner.backend == backend,
    }


def _answers(runner: Runner, make: Callable[[], Any]) -> Any:
    on_device = runner.on_device
    return runner(make().cpu().numpy()) if on_device is None else on_device(make()).cpu().numpy()


def _inputs(number: int, seed: int, host: bool) -> Callable[[], Any]:
    """A call that makes the inputs of `number` candidates whose crops and meshes are on the device, or in the host's memory."""
    import torch

    from engine.recognition.flowmap_gpu import network_inputs

    pictures, meshes = moved_pairs(number, CROP_SIDE, seed), scattered_meshes(number, seed)
    where = torch.device("cpu") if host else device.current_device()
    before, after, mesh = (torch.from_numpy(part).to(where) for part in (*pictures, meshes))
    kind = json.loads(WEIGHTS.with_suffix(".json").read_bytes())["input"]
    return lambda: network_inputs(kind, before, after, mesh).inputs


def _median_us(calls: Sequence[Callable[[], Any]]) -> float:
    return round(1000 * gpu_median_ms(in_turns(calls), ROUNDS), 1)


CHECKS = {
    "candidates": tuple(Check(f"inputs of {number}", partial(inputs, number=number), 20) for number in CANDIDATES),
    "chain": tuple(Check(f"answers by {backend}", partial(chain, backend=backend), 30) for backend in BACKENDS),
}
