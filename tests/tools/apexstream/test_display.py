from __future__ import annotations

from dataclasses import replace

import pytest

from apexstream.display import TaskBars, bytes_bar, duration, event_table, progress_bar, share_bar, table_console
from tests.stream.recorded.test_files import EVENT


def test_a_table_shows_each_event_whole_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    table_console().print(event_table([EVENT, replace(EVENT, label="negative", truncated=True, offset=None, kind=None)]))
    first, second = capsys.readouterr().out.rstrip().splitlines()[-2:]
    assert first.split() == ["0", "4.004", "4.204", "4.438", "micro", "surprise", "0.92", "1.31"]
    assert second.split() == ["0", "4.004", "4.204", "negative", "(cut", "short)", "0.92", "1.31"]


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("clip.mp4") as show:
        show(1, 10, 0)
        show(2, None, 1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_the_bar_shows_speed_and_share_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("apexstream.display.REFRESH_S", 0.0)
    with progress_bar("clip.mp4") as show:
        show(1, 10, 0)
        show(5, 10, 3)
    output = capsys.readouterr().err
    assert "clip.mp4" in output
    assert "50 %" in output
    assert "frames/s" in output
    assert "3 events" in output


def test_a_share_is_a_bar_on_a_terminal_and_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with share_bar("Reading the video") as show:
        show(0.5)
    assert capsys.readouterr().err == ""
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    with share_bar("Reading the video") as show:
        show(0.5)
    output = capsys.readouterr().err
    assert "Reading the video" in output and "50 %" in output


def test_a_download_is_a_bar_on_a_terminal_and_a_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bytes_bar("fetching"):
        pass
    assert capsys.readouterr().err == "", "nothing comes, nothing is said"
    with bytes_bar("fetching") as show:
        show(1_000_000, 4_000_000)
        show(4_000_000, 4_000_000)
    assert capsys.readouterr().err == "fetching (4.0 MB)\n"
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with bytes_bar("fetching") as show:
        show(1_000_000, 4_000_000)
    output = capsys.readouterr().err
    assert "fetching" in output and "1.0/4.0 MB" in output and "(4.0 MB)" not in output


def test_the_time_that_is_left_follows_from_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("apexstream.display.time.monotonic", lambda: now)
    with TaskBars(1000) as bars:
        bars.start("a", "a.mp4", 200)
        bars.start("b", "b.mp4", 800)
        now = 110.0
        assert bars.left_s() is None, "nothing is done"
        bars.update("a", 30, 60)
        assert bars.left_s() == 90.0
        bars.update("b", 5, None)
        bars.end("a")
        assert bars.left_s() == 40.0
        bars.update("b", 70, 60)
        assert bars.left_s() == 0.0, "a file may hold more than it states"
        bars.end("b")
    captured = capsys.readouterr()
    assert captured.out == captured.err == "", "no bar where there is no terminal"


def test_bars_of_all_and_of_each_that_is_under_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("apexstream.display.REFRESH_S", 0.0)
    with TaskBars(1000) as bars:
        bars.start("a", "[a].mp4", 500)
        bars.update("a", 30, 60)
    output = capsys.readouterr().err
    assert "all videos" in output and "[a].mp4" in output
    assert "25 %" in output and "50 %" in output


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown time"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (5000, "83 min"),
        (5400, "1 h 30 min"),
        (36300, "10 h 05 min"),
    ],
)
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_no_number_is_cut_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    late = [replace(mark, t=mark.t + 36000) for mark in (EVENT.onset, EVENT.apex, EVENT.offset) if mark]
    onset, apex, offset = late
    event = replace(EVENT, onset=onset, apex=apex, offset=offset, label="uncertain", why="turned away", truncated=True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns in ("60", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        table_console().print(event_table([event]))
        rows = capsys.readouterr().out.rstrip().splitlines()[3:]
        first = rows[0].split()
        assert (first[:6], first[-2:]) == (["0", "36004.004", "36004.204", "36004.438", "micro", "uncertain"], ["0.92", "1.31"])
        assert " ".join(word for row in rows[1:] for word in row.split()) == "(turned away) (cut short)"
        assert all(len(row) <= 80 for row in rows)
