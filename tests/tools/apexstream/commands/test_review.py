from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apexstream.cli import main
from stream.files import folder_lock
from stream.review.database import FILE, ReviewDatabase
from tests.review import code_of, events_at, results_of, write_plain, write_results

ROOT = Path(__file__).resolve().parents[4]


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["review", *map(str, args)])
    return ended.value.code


def test_the_page_is_announced_and_a_signal_ends_it(tmp_path: Path) -> None:
    video = write_plain(tmp_path / "clip.mp4", 60)
    results = results_of(video, tmp_path / "results", [10, 30])
    with ReviewDatabase.open(results) as database:
        database.put("1", code_of(events_at([10])[0]))
        token = database.token
    command = [sys.executable, "-m", "apexstream", "review", str(results), "--coder", "anna", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as server:
        assert server.stdout is not None
        said = "".join(server.stdout.readline() for _ in range(4))
        with pytest.raises(BlockingIOError), folder_lock(results):
            pytest.fail("an analysis could replace the events that are reviewed")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert "2 events, 1 decision of anna so far" in said
    assert re.search(rf"http://127\.0\.0\.1:\d+/#token={token}", said)


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb"])
def test_what_is_no_name_is_wrong_usage(name: str, tmp_path: Path) -> None:
    assert run(tmp_path, "--coder", name) == 2


def test_without_a_login_name_the_coder_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown() -> str:
        raise KeyError("uid 1234")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert run(write_results(tmp_path, [])) == 2
    assert "--coder NAME" in capsys.readouterr().err


def test_results_are_reviewed_once_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_results(tmp_path / "results", events_at([10]))
    with folder_lock(results):
        assert run(results, "--coder", "anna") == 1
    assert "is being written by an analysis; wait for its end" in capsys.readouterr().err
    assert not (results / FILE).exists()


def test_another_video_is_refused_before_the_page_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of(write_plain(tmp_path / "clip.mp4", 60), tmp_path / "results", [40])
    for other in (write_plain(tmp_path / "short.mp4", 45), write_plain(tmp_path / "annotated.mp4", 60, height=160)):
        assert run(results, "--coder", "anna", "--video", other) == 1
        said = capsys.readouterr()
        assert f"{other} is not the video that was analysed" in said.err and "page" not in said.out


def test_failures_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 1
    assert "the folder of one video's results is expected" in capsys.readouterr().err
    results = write_results(tmp_path / "results", events_at([10]))
    assert run(results, "--coder", "anna") == 1
    assert "the video is not there; if it was moved, name it by --video FILE" in capsys.readouterr().err
    with ReviewDatabase.open(results) as database:
        database.put("1", code_of(events_at([10])[0]))
    assert run(results, "--coder", "anna", "--blind", "machine") == 1
    assert "anna has coded these results with --blind none" in capsys.readouterr().err
    assert run(results, "--blind", "all") == 2
