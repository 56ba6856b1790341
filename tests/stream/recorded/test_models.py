from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import PipelineSettings, RecognizerSettings
from engine.errors import WeightsError
from stream.recorded import models as models_module
from stream.recorded.models import Models


def test_models_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = models_module.mesh.load
    monkeypatch.setattr(models_module.mesh, "load", lambda *given: (loads.append("mesh"), load(*given))[1])
    models = Models(PipelineSettings())
    for stream in ("one", "two"):
        pipeline = models.pipeline(stream)
        assert pipeline.stream == stream
        pipeline.close()
    models.close()
    assert loads == ["mesh"]


def test_models_that_cannot_be_loaded_are_reported() -> None:
    models = Models(PipelineSettings(recognizer=RecognizerSettings(weights=Path("none.onnx"))))
    with pytest.raises(WeightsError, match=r"none"):
        models.pipeline("v")
    models.close()
