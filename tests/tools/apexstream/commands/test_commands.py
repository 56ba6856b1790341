from __future__ import annotations

import pytest

from apexstream.commands import say_error


def test_a_failure_goes_to_stderr_in_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("clip.mp4: torn")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "apexstream: error: clip.mp4: torn\n")
