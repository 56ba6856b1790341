"""The checks themselves: on a GPU where there is one, else with interpreted kernels; and what their modules import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from apexstream.bench.on_gpu import PARTS, answers, correctness, run, speed
from apexstream.bench.on_gpu.check import Job, SkippedError
from engine import geometry
from engine.ops import device
from engine.ops.tvl1 import gpu, reference
from engine.ops.tvl1.method import Method
from engine.types import F32
from engine.weights import default_weights
from tests.pretended_gpu import pretend_gpu

ROOT = Path(__file__).resolve().parents[5]
JOB = Job(None, Path("gpu.json"), lambda: 60.0)

LATE = [
    "engine.ops.tvl1.triton_kernels",
    "engine.ops.strain.triton_kernels",
    "engine.recognition.triton_kernels",
    "engine.recognition.flowmap_gpu",
    "engine.runtime.eager",
    "engine.runtime.torch_cuda",
]
"""What checks import when they run."""

BARE = """
import importlib, sys

ALLOWED = {"numpy", "torch", "torchgen", "functorch", "triton", "sympy", "mpmath", "filelock", "jinja2", "markupsafe",
           "networkx", "fsspec", "typing_extensions", "setuptools", "engine", "stream", "training", "apexstream",
           *sys.stdlib_module_names}

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED and not name.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
"""Imports modules where there is nothing but numpy, PyTorch and Triton."""


def test_a_bare_machine_with_pytorch_does_for_the_imports() -> None:
    names = [f"apexstream.bench.on_gpu.{path.stem}" for path in (ROOT / "tools/apexstream/bench/on_gpu").glob("[!_]*.py")]
    needed = ["apexstream.bench.__main__", *names, *LATE]
    done = subprocess.run([sys.executable, "-c", BARE, *needed], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_correctness_with_interpreted_kernels(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    environment = {**os.environ, "PYTHONPATH": ".:tools", "TRITON_INTERPRET": "1"}
    arguments = ["gpu", "--parts", "correctness", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "apexstream.bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(out.read_text())["runs"][0]["checks"]
    finished = {name for name, entry in checks.items() if entry["finished"]}
    expected = {f"correctness: {check.name}" for check in correctness.CHECKS["correctness"]}
    assert finished == expected - {"correctness: network inputs"}
    assert all("interpreted" in entry["skipped"] for name, entry in checks.items() if name not in finished)


def test_wrong_flows_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    off = np.zeros((16, 16), np.float32)
    off[-1, -1] = 0.1

    def solved(error: F32) -> Callable[[F32, F32, Method], F32]:
        return lambda fixed, moving, method: (
            np.stack([reference.solve(*p, method) for p in zip(fixed, moving, strict=True)]) + error
        )

    monkeypatch.setattr(gpu, "solve_arrays", solved(0 * off))
    assert correctness.flow_of_faces(JOB)["right"] is True
    monkeypatch.setattr(gpu, "solve_arrays", solved(off))
    assert correctness.flow_of_faces(JOB)["right"] is False
    counted = iter(range(100))
    monkeypatch.setattr(gpu, "solve_arrays", lambda fixed, moving, method: np.full((len(fixed), 2, 1, 1), next(counted) * 1e-6))
    assert correctness.batch_sizes(JOB)["unsteady"] == [2]


def test_every_part_has_its_checks() -> None:
    assert tuple(run.MODULES) == PARTS
    names = [check.name for _, check in run._checks(PARTS)]
    assert len(names) == len(set(names))


def test_the_network_that_comes_with_the_project() -> None:
    assert default_weights() == answers.WEIGHTS


def test_times_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for part in ("timing", "candidates", "chain"):
        for _, check in run._checks([part]):
            with pytest.raises(SkippedError, match="interpreted"):
                check.run(JOB)


@pytest.fixture
def timed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything around the kernels and the GPU's clock, which counts a millisecond a call here."""

    def once(call: Callable[[], object], rounds: int) -> float:
        call()
        return 1.0

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for module in (speed, answers):
        monkeypatch.setattr(module, "needs_gpu", lambda: None)
        monkeypatch.setattr(module, "gpu_median_ms", once)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


@pytest.mark.usefixtures("timed_on_the_cpu")
@pytest.mark.parametrize(("name", "known"), [("NVIDIA H200", True), ("Voodoo2", False)])
def test_a_time_stands_beside_its_floor(name: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(gpu, "solve_batch", lambda fixed, moving: torch.zeros(len(fixed), 2, *fixed.shape[1:]))
    found = speed.flow(JOB, pairs=2, side=16)
    assert found["median_us"] == 1000 and found["us_a_pair"] == 500
    assert (("times_floor" in found) == known and "unknown" in str(found)) or known


@pytest.mark.usefixtures("timed_on_the_cpu")
def test_the_answers_of_backends_are_compared_and_refusals_keep_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(answers, "_inputs", lambda number, seed, host: lambda: maps)
    for backend in ("ort", "eager"):
        found = answers.chain(JOB, backend)
        assert found["right"] and found["median_us"] == 1000 and found["greatest_apart"] < 1e-5
    monkeypatch.setattr(answers, "APART", -1.0)
    assert not answers.chain(JOB, "ort")["right"]
    with pytest.raises(SkippedError, match="tensorrt cannot run here"):
        answers.chain(JOB, "tensorrt")
    assert answers.inputs(JOB, 1)["us_a_candidate"] == 1000


def test_network_inputs_are_compared_with_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)
    monkeypatch.setattr(correctness, "MOMENTS", 1)
    kinds = {kind: geometry.INPUTS[kind] for kind in ("whole", "five-regions")}
    monkeypatch.setattr(geometry, "INPUTS", kinds)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = correctness.inputs_of_networks(JOB)
    assert found["right"] and set(found["greatest"]) == set(kinds)
    monkeypatch.setattr(correctness, "INPUTS_APART", -1.0)
    assert not correctness.inputs_of_networks(JOB)["right"]


@pytest.mark.usefixtures("timed_on_the_cpu")
def test_candidates_go_from_crops_to_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)
    for name, value in (("CANDIDATES", (2,)), ("BUFFERS", 1)):
        monkeypatch.setattr(answers, name, value)
    assert answers.inputs(JOB, 2) == {"from_device_us": 1000, "from_host_us": 1000, "us_a_candidate": 500}
    assert answers.chain(JOB, "ort")["right"]


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    if (reason := device.refusal()) is not None:
        pytest.skip(reason)
    assert run.measure(("correctness", "timing", "candidates", "chain"), tmp_path / "gpu.json", seconds=600)
