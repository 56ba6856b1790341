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


def test_where_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kernels"))
    assert probes.kernel_cache().startswith(f"kept in {tmp_path / 'kernels'}")

    def refuse(folder: Path) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(probes, "writable", refuse)
    assert "cannot be written (Read-only file system)" in probes.kernel_cache()
