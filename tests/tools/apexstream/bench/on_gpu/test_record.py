from __future__ import annotations

from pathlib import Path

import pytest

from apexstream.bench.on_gpu.record import SOURCES, made_here, source_digest
from training.provenance import ROOT


def test_what_made_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = made_here()
    assert found["device"] == {"name": "the CPU, which interprets the kernels"}
    assert found["versions"]["numpy"] and found["source"] == source_digest()
    assert found == made_here()


def test_another_source_has_another_digest(tmp_path: Path) -> None:
    assert all((ROOT / folder).is_dir() for folder in SOURCES)
    file = tmp_path / SOURCES[0] / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("A = 1")
    one = source_digest(tmp_path)
    file.write_text("A = 2")
    two = source_digest(tmp_path)
    file.rename(file.with_name("b.py"))
    assert len({one, two, source_digest(tmp_path)}) == 3
