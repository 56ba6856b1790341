"""The rules of skipping, tried on a small suite of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.data
def test_real():
    pass

@pytest.mark.gpu
def test_gpu():
    pytest.skip("no GPU")

@pytest.mark.skip(reason="later")
def test_later():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""
MARKERS = "[pytest]\nmarkers =\n    data: d\n    gpu: g\n"


def outcome(folder: Path, ci: str, data: Path) -> tuple[int, str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder / "conftest.py")
    (folder / "pytest.ini").write_text(MARKERS)
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "test_suite.py"]
    environment = {**os.environ, "CI": ci, "APEXSTREAM_DATA": str(data)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("ci", "has_data", "code", "counts"),
    [
        ("", True, 0, "1 passed, 2 skipped, 1 xfailed"),
        ("", False, 0, "3 skipped, 1 xfailed"),
        ("true", True, 1, "1 passed, 1 skipped, 1 xfailed, 1 error"),
        ("true", False, 1, "1 skipped, 1 xfailed, 2 errors"),
    ],
)
def test_a_skipped_test_fails_in_continuous_integration(
    ci: str, has_data: bool, code: int, counts: str, tmp_path: Path
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    returned, reported = outcome(suite, ci, tmp_path if has_data else tmp_path / "none")
    assert (returned, counts in reported) == (code, True), reported
    if not has_data:
        assert "no real data at" in reported
