from __future__ import annotations

from pathlib import Path

import pytest

from apexstream import probes


@pytest.mark.parametrize("probe", [probes.h264, probes.face_model, probes.face_mesh, probes.dlib_detector, probes.weights])
def test_each_probe_returns_a_line(probe: object) -> None:
    assert callable(probe)
    detail = probe()
    assert detail and "\n" not in detail


def test_a_folder_is_tried_by_writing(tmp_path: Path) -> None:
    assert probes.writable(tmp_path) == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="none"):
        probes.writable(tmp_path / "none")
