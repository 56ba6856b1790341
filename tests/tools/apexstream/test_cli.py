from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import apexstream.cli
from apexstream.cli import COMMANDS, load, main
from engine.errors import SourceError

ROOT = Path(__file__).resolve().parents[3]
HELP_LIMIT_S = 0.5
"""Promised; measured 0.05 s on two cores (typer 0.29, rich 15)."""


def children_cpu_s() -> float:
    """The processor time of all child processes that have ended: what other programs do changes it little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "apexstream", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


def test_help_answers_at_once_and_lists_every_command() -> None:
    times = []
    for _ in range(5):
        before = children_cpu_s()
        helped = run("--help")
        times.append(children_cpu_s() - before)
    assert helped.returncode == 0
    assert all(f"  {name} " in helped.stdout for name in COMMANDS)
    assert "..." not in helped.stdout.split("Commands:")[1]
    assert min(times) < HELP_LIMIT_S


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_called_for_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(name) is not None
    assert exits(name, "--help") == 0
    assert f"apexstream {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits("--version") == 0
    assert capsys.readouterr().out.startswith("apexstream 0.")


@pytest.mark.parametrize(
    "args",
    [("nonsense",), ("--nonsense",), ("analyze",), ("analyze", "a.mp4"), ("analyze", "--out", "x"), ("doctor", "more"), ()],
)
def test_wrong_usage_exits_2(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(*args) == 2
    captured = capsys.readouterr()
    assert "Usage:" in captured.err + captured.out


def test_a_failure_is_one_sentence_and_exits_1(tmp_path: Path) -> None:
    ended = run("analyze", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "out"))
    assert ended.returncode == 1
    assert ended.stderr == f"apexstream: error: {tmp_path / 'none.mp4'}: there is no such file or folder\n"
    assert ended.stdout == ""


def failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(apexstream.cli, "app", fail)


@pytest.mark.parametrize(
    ("error", "output"),
    [
        (SourceError("the tape is torn"), "apexstream: error: the tape is torn\n"),
        (
            KeyError("x"),
            "apexstream: error: unexpected error (KeyError: 'x'); run again with --debug to see where\n",
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "apexstream: error: this command needs the package torch: pip install 'apexstream[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'jinja2'", name="jinja2"),
            "apexstream: error: this command needs the package jinja2: pip install 'apexstream[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'sympy'", name="sympy"),
            "apexstream: error: unexpected error (ModuleNotFoundError: No module named 'sympy'); "
            "run again with --debug to see where\n",
        ),
    ],
)
def test_no_traceback_reaches_the_user_unless_asked_for(
    error: Exception, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(error, monkeypatch)
    assert exits("doctor") == 1
    assert capsys.readouterr().err == output
    with pytest.raises(type(error)):
        main(["doctor", "--debug"])


def test_debug_is_understood_before_and_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(apexstream.cli, "app", lambda args, prog_name: seen.append(args))
    for args in (["--debug", "analyze", "a"], ["analyze", "a", "--debug"], ["analyze", "--", "--debug"]):
        exits(*args)
    assert seen == [["--debug", "analyze", "a"], ["--debug", "analyze", "a"], ["analyze", "--", "--debug"]]


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("raise KeyboardInterrupt", 130)])
def test_the_process_ends_as_main_does_whatever_its_threads_are_at(ends: str, code: int) -> None:
    script = f"""
import atexit, sys, threading
import apexstream.cli
def main():
    threading.Thread(target=threading.Event().wait).start()
    atexit.register(print, "done at the end")
    print("printed")
    {ends}
apexstream.cli.main = main
apexstream.cli.run()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "printed\ndone at the end\n", "")
