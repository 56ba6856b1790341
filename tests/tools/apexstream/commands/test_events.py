from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apexstream.cli import main
from apexstream.commands import events as events_module
from stream.events.formats import FORMATS
from stream.events.store import Store
from tests.events import damage, stored


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["events", *map(str, args)])
    return ended.value.code


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Store(tmp_path / "data") as store:
        store.append(
            [
                stored(1),
                stored(2, label="positive"),
                stored(3, stream="door", length_s=2.0, truncated=True),
                stored(4, stream="door", label="uncertain", confidence=0.41, why="not sure"),
            ]
        )
    return tmp_path / "data"


def seqs(text: str) -> list[int]:
    return [json.loads(line)["seq"] for line in text.splitlines()]


def test_a_table_of_what_is_stored(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", data) == 0
    shown = capsys.readouterr().out
    header, *rows = (line for line in shown.splitlines() if line.strip())
    assert header.split() == ["seq", "emitted", "stream", "face", "kind", "label", "confidence", "onset", "s", "length", "s"]
    assert rows[1].split()[0] == "1"
    assert "micro" in rows[1]
    assert "surprise (cut short)" in rows[3]
    assert "uncertain (not sure)" in rows[4]
    assert rows[-1] == "4 events"


def test_a_long_table_shows_the_newest(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "SHOWN", 2)
    assert run("--data", data) == 0
    shown = capsys.readouterr().out
    assert "4 events, of which the newest 2 are shown; --format jsonl, csv" in shown and shown.endswith("or json gives all\n")
    assert "positive" not in shown


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ((), [1, 2, 3, 4]),
        (("--since", 2), [3, 4]),
        (("--stream", "door"), [3, 4]),
        (("--stream", "door", "--stream", "lobby"), [1, 2, 3, 4]),
        (("--label", "positive", "--label", "uncertain"), [2, 4]),
        (("--kind", "macro"), [3]),
        (("--kind", "micro", "--stream", "door"), [4]),
        (("--from", "2000-01-01", "--to", "2100-01-01T00:00Z"), [1, 2, 3, 4]),
        (("--from", "2100-01-01"), []),
        (("--to", "2000-01-01T12:00:00+02:00"), []),
        (("--since", 4), []),
        (("--since", 2**63 - 1), []),
    ],
)
def test_events_are_filtered(
    data: Path, capsys: pytest.CaptureFixture[str], args: tuple[object, ...], found: list[int]
) -> None:
    assert run("--data", data, "--format", "jsonl", *args) == 0
    assert seqs(capsys.readouterr().out) == found


def test_times_are_those_at_which_events_were_stored(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(data) as store:
        border = time.time()
        store.append([stored(5)])
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(border)) + f"{border % 1:.6f}"[1:]
    assert run("--data", data, "--format", "jsonl", "--from", moment) == 0
    assert seqs(capsys.readouterr().out) == [5]


def test_all_events_are_exported_however_many(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(data) as store:
        store.append([stored(number) for number in range(2500)])
    assert run("--data", data, "--format", "jsonl") == 0
    assert seqs(capsys.readouterr().out) == list(range(1, 2505))


def test_json_is_one_array(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", data, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [event["seq"] for event in found] == [1, 2, 3, 4]
    assert found[0] == {**stored(1), "seq": 1}
    assert run("--data", data, "--format", "json", "--since", 4) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_csv_has_a_row_an_event(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", data, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["seq"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[2]["stream"] == "door"
    assert rows[2]["truncated"] == "true"
    assert [row["why"] for row in rows] == ["", "", "", "not sure"]
    assert float(rows[0]["offset_t"]) - float(rows[0]["onset_t"]) == pytest.approx(0.4)


@pytest.mark.parametrize("form", ["table", "json", *FORMATS])
def test_a_file_is_written_completely(
    data: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], form: str
) -> None:
    out = tmp_path / "exported"
    out.write_text("what was there before")
    assert run("--data", data, "--format", form, "--out", out) == 0
    assert capsysbinary.readouterr().out == b""
    assert run("--data", data, "--format", form) == 0
    assert out.read_bytes() == capsysbinary.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "exported"]


def test_no_binary_file_goes_to_a_terminal(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run("--data", data, "--format", "parquet") == 2
    assert "give --out FILE" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_reported(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", data, "--out", tmp_path / "none" / "file") == 1
    assert capsys.readouterr().err.endswith("file cannot be written: no such file or directory\n")


def test_an_export_loads_no_part_of_the_server(data: Path) -> None:
    script = (
        "import sys; from apexstream.cli import main\n"
        "try: main(['events', '--data', sys.argv[1], '--format', 'csv'])\n"
        "finally: print([name for name in sys.modules if name.startswith(('websockets', 'stream.server', 'stream.analysis'))])"
    )
    done = subprocess.run([sys.executable, "-c", script, data], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] and done.stdout.splitlines()[-1] == "[]"


def test_events_can_be_listed_while_the_service_has_them_open(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(data) as store:
        store.append([stored(5)])
        assert run("--data", data, "--format", "jsonl", "--since", 4) == 0
    assert seqs(capsys.readouterr().out) == [5]


def test_a_damaged_event_is_skipped_and_reported(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(data / "events.sqlite3", 2, "{")
    assert run("--data", data, "--format", "jsonl") == 0
    shown = capsys.readouterr()
    assert seqs(shown.out) == [1, 3, 4]
    assert "1 stored event is damaged and skipped" in shown.err


def test_the_users_own_folder_is_the_default(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    with Store(tmp_path / "home" / "apexstream") as store:
        store.append([stored(9)])
    assert run("--format", "jsonl") == 0
    assert seqs(capsys.readouterr().out) == [1]


def test_a_folder_without_events_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", tmp_path) == 1
    assert "holds no events" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [("--from", "yesterday"), ("--kind", "nano"), ("--format", "xml"), ("--since", "-1"), ("--since", 2**63), ("x",)]
)
def test_wrong_usage_exits_2(data: Path, args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", data, *args) == 2
    assert "Usage:" in capsys.readouterr().err


def test_no_number_is_cut_on_a_narrow_terminal(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(data) as store:
        store.append([stored(5, stream="front door", label="uncertain", confidence=0.41, why="turned away", truncated=True)])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--data", data, "--since", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines) and not any("…" in line for line in lines)
    event = stored(5)
    (row,) = (line.split() for line in lines if "micro" in line)
    length = event["offset"]["t"] - event["onset"]["t"]
    assert row[0] == "5" and row[-3:] == ["0.41", f"{event['onset']['t']:.3f}", f"{length:.3f}"]
    assert "(turned" in " ".join(lines) and "short)" in " ".join(lines)
