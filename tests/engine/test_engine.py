from __future__ import annotations

import subprocess
import sys

import pytest

import engine


def test_the_pipeline_is_there_and_nothing_else_is_made_up() -> None:
    from engine.pipeline import Pipeline

    assert engine.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="has no attribute 'Pipelines'"):
        engine.Pipelines  # noqa: B018


def test_types_and_errors_load_no_model_library() -> None:
    models = ("torch", "mediapipe", "ai_edge_litert", "dlib", "onnxruntime")
    script = f"import sys, engine.errors, engine.types; print([m for m in {models} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
