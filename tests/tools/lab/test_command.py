from __future__ import annotations

import sys

import pytest
import typer

from engine.errors import ApexError
from lab.command import run


def fails() -> None:
    raise ApexError("the file is empty")


@pytest.mark.parametrize("as_app", [False, True])
def test_an_error_is_one_sentence_and_exit_code_1(
    as_app: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command"])
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(fails)
    with pytest.raises(SystemExit) as ended:
        run(app if as_app else fails)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "apexstream: error: the file is empty\n"
