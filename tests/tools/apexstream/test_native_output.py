from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from apexstream.native_output import native_output_hidden

SCRIPT = """
import os, sys
from apexstream.native_output import native_output_hidden
with native_output_hidden({enabled}):
    os.write(2, b"native noise\\n")
    print("for the user", file=sys.stderr)
os.write(2, b"afterwards\\n")
print("last", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("enabled", "expected"),
    [(True, "for the user\nafterwards\nlast\n"), (False, "native noise\nfor the user\nafterwards\nlast\n")],
)
def test_native_messages_are_dropped_and_pythons_are_not(enabled: bool, expected: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(enabled=enabled)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert ended.stderr == expected


def test_a_stderr_that_is_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = io.StringIO()
    monkeypatch.setattr(sys, "stderr", reported)
    with native_output_hidden():
        print("for the user", file=sys.stderr)
        assert sys.stderr is reported
    assert reported.getvalue() == "for the user\n"


def test_an_error_inside_restores_stderr() -> None:
    before = sys.stderr
    with pytest.raises(KeyError), native_output_hidden():
        raise KeyError
    assert sys.stderr is before
