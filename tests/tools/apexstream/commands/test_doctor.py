from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from apexstream import probes
from apexstream.cli import main
from apexstream.commands import doctor
from engine.errors import WeightsError
from engine.mesh import bundle


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


def test_a_working_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is True
    by_name = {finding["name"]: finding for finding in found["findings"]}
    for name in (
        "Python",
        "H.264 decoding",
        "face model",
        "face mesh",
        "dlib face detector",
        "shipped weights",
        "runtime",
        "TV-L1",
    ):
        assert by_name[name]["standing"] == "ok", by_name[name]
    assert all(finding["detail"] for finding in found["findings"])
    weights = Path(doctor.__file__).parents[3] / "engine" / "weights" / "ahmsa-3db.onnx"
    assert hashlib.sha256(weights.read_bytes()).hexdigest()[:12] in by_name["shipped weights"]["detail"]


def test_a_broken_part_is_reported_and_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise WeightsError("the file is torn")

    monkeypatch.setattr(probes, "weights", broken)
    assert exits("doctor") == 1
    shown = capsys.readouterr().out
    assert "FAILED shipped weights: the file is torn" in shown
    assert shown.rstrip().endswith("Videos cannot be analysed here.")


def test_without_the_face_model_the_way_to_get_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "face.task"))
    assert exits("doctor") == 1
    shown = capsys.readouterr().out
    assert f"FAILED face model: the face model {tmp_path / 'face.task'} (environment variable {bundle.VARIABLE})" in shown
    assert "`apexstream fetch` fetches it" in shown


def test_a_library_that_cannot_be_loaded_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise OSError("libtorch_cuda.so: cannot open shared object file")

    monkeypatch.setattr(probes, "cuda", broken)
    assert exits("doctor") == 0
    shown = capsys.readouterr().out
    assert "unknown: OSError: libtorch_cuda.so" in shown and shown.rstrip().endswith("Videos can be analysed here.")


def test_a_librarys_error_is_one_line() -> None:
    def broken() -> str:
        raise OSError("libGL.so.1: no such file\nand more")

    finding = doctor.probe("video", "cv2", broken)
    assert (finding.standing, finding.detail) == ("failed", "OSError: libGL.so.1: no such file")


def test_each_required_package_is_listed_once() -> None:
    names = [finding.name for finding in doctor.packages()]
    assert len(names) == len(set(names))
    assert {"av", "ai-edge-litert", "mediapipe", "numpy", "onnxruntime", "torch", "scikit-image"} <= set(names)


def test_every_backend_that_is_not_used_has_a_reason() -> None:
    backends = [finding for finding in doctor.accelerators() if finding.topic == "backends"]
    names = {finding.name for finding in backends}
    assert {"TV-L1 on a GPU", "runtime tensorrt", "runtime cuda", "runtime ort", "runtime eager"} <= names
    assert all(finding.detail.startswith(("can be used", "not used: ")) for finding in backends)


def test_a_backend_that_no_gpu_has_run_is_marked() -> None:
    found = {finding.name: finding.detail for finding in doctor.accelerators()}
    assert found["runtime tensorrt"].endswith("checked against the real TensorRT 11 bindings, not yet run on a GPU")
    assert found["runtime cuda"].endswith("not yet run on a GPU") and "GPU" not in found["runtime ort"]
