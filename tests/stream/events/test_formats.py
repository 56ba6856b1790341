from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from apexstream.cli import main
from engine.types import Event, Mark
from stream.events.formats import FORMATS, Entry, LineFormat, Recording, file_name
from stream.events.formats.csv import columns
from stream.events.store import Store
from stream.recorded.files import EventFiles
from tests.events import an_event, stored
from tests.running_server import ask, running_server

IDS = LineFormat("text/plain", lambda entry: f"{entry.fields['id']}\n", lambda recording: "ids\n", ending="txt")
"""What a module of a new format would define."""


def live(folder: Path, name: str, capsys: pytest.CaptureFixture[bytes]) -> bytes:
    """What /api/events answers."""

    async def answer() -> bytes:
        async with running_server(folder) as service:
            service.store.append([stored(1), stored(2)])
            found = await ask(service.port, f"/api/events?format={name}")
            assert (found.status, found.headers["content-type"]) == (200, FORMATS[name].media_type)
            assert f'filename="{file_name(name)}"' in found.headers["content-disposition"]
            return found.body

    return asyncio.run(answer())


def listed(folder: Path, name: str, capsys: pytest.CaptureFixture[bytes]) -> bytes:
    """What `apexstream events` prints."""
    with Store(folder) as store:
        store.append([stored(1), stored(2)])
    with pytest.raises(SystemExit) as ended:
        main(["events", "--data", str(folder), "--format", name])
    assert ended.value.code == 0
    return capsys.readouterr().out


def recorded(folder: Path, name: str, capsys: pytest.CaptureFixture[bytes]) -> bytes:
    """What the analysis of a video leaves."""
    files = EventFiles(folder, formats=[name])
    for number in (1, 2):
        files.event(an_event(number))
    files.finish({})
    return (folder / file_name(name)).read_bytes()


@pytest.mark.parametrize("export", [live, listed, recorded])
@pytest.mark.parametrize("name", [*FORMATS, "ids"])
def test_every_format_can_be_had_everywhere(
    name: str,
    export: Callable[[Path, str, pytest.CaptureFixture[bytes]], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setitem(FORMATS, "ids", IDS)
    whole = [Entry.recorded(an_event(number), 0.0) if export is recorded else entry(number) for number in (1, 2)]
    expected = b"".join(FORMATS[name].export(whole, Recording() if export is recorded else None))
    assert export(tmp_path, name, capsysbinary) == expected != b""


def entry(number: int) -> Entry:
    """An event as it is read from the store."""
    fields = stored(number)
    return Entry.stored({"type": fields["type"], "v": fields["v"], "seq": number, **fields})


def text(name: str, events: Iterable[Event], origin: float = 0.0) -> str:
    entries = [Entry.recorded(event, origin) for event in events]
    return b"".join(FORMATS[name].export(entries, Recording(origin=origin))).decode()


def rows(events: Iterable[Event]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text("csv", events))))


EVENT = an_event(4, stream="clip, one")


def test_a_line_of_json_is_the_json_form() -> None:
    played = {"onset": 1.0, "apex": 1.2, "offset": 1.4}
    assert json.loads(text("jsonl", [EVENT], 3.0)) == {**EVENT.as_dict(), "played": played}
    line = b"".join(FORMATS["jsonl"].export([entry(1)], None))
    assert json.loads(line) == {**stored(1), "seq": 1}


def test_csv_reads_back() -> None:
    uncertain = replace(EVENT, label="uncertain", why="not sure", truncated=True, probabilities={"positive": 1.0})
    first, second = rows([EVENT, uncertain])
    assert tuple(first) == columns(Recording())
    assert (first["stream"], first["label"], first["kind"]) == ("clip, one", "surprise", "micro")
    assert (first["onset_frame"], float(first["onset_t"])) == ("120", 4.0)
    assert float(first["duration_s"]) == pytest.approx(0.4)
    assert float(first["p_surprise"]) == 0.92
    assert (first["why"], second["why"]) == ("", "not sure")
    assert (second["truncated"], second["p_negative"], second["p_positive"]) == ("true", "", "1.0")


@pytest.mark.parametrize("recorded", [False, True])
def test_csv_rows_fit_the_header(recorded: bool) -> None:
    events = [EVENT, replace(EVENT, offset=None, kind=None)]
    entries = [Entry.recorded(e, 0.0) if recorded else Entry.stored({**stored(1), **e.as_dict()}) for e in events]
    recording = Recording() if recorded else None
    header, *lines = csv.reader(io.StringIO(b"".join(FORMATS["csv"].export(entries, recording)).decode()))
    assert header == list(columns(recording)) and [len(line) for line in lines] == [len(header)] * 2


def test_hostile_names_are_neither_formulas_nor_markup() -> None:
    hostile = replace(EVENT, stream="=HYPERLINK(1)", label="@SUM(1)", model="+cmd|' /C calc'!A0", why="a\x1b[2Jb")
    other = replace(EVENT, onset=Mark(0, -3.77), label="<v Eve>--> x\n\nNOTE", stream="\udcff.mp4")
    first, second = rows([hostile, other])
    assert [first[name] for name in ("stream", "label", "model")] == ["'=HYPERLINK(1)", "'@SUM(1)", "'+cmd|' /C calc'!A0"]
    assert first["why"] == "a\\x1b[2Jb" and second["onset_t"] == "-3.770000" and second["stream"] == "\\udcff.mp4"
    assert json.loads(text("jsonl", [hostile]))["stream"] == "=HYPERLINK(1)", "JSON has it as it is"
    cues = text("vtt", [hostile, other])
    assert "&lt;v Eve&gt;--&gt; x\\n\\nNOTE" in cues and cues.count(" --> ") == 2


def test_subtitles_hold_valid_cues_in_order() -> None:
    late = replace(EVENT, onset=Mark(0, 3723.5), offset=Mark(1, 3724.25), face=1, kind="macro")
    instant = replace(EVENT, onset=Mark(0, 1.0), offset=Mark(0, 1.0))
    before_zero = replace(EVENT, onset=Mark(0, -2.0), offset=Mark(1, -1.5))
    across_zero = replace(EVENT, onset=Mark(0, -0.2), offset=Mark(1, 0.3))
    cues = text("vtt", [late, EVENT, instant, before_zero, across_zero, replace(EVENT, offset=None)])
    assert cues.splitlines()[:2] == ["WEBVTT", ""]
    assert [line for line in cues.splitlines() if "-->" in line] == [
        "00:00:00.000 --> 00:00:00.300",
        "00:00:01.000 --> 00:00:01.040",
        "00:00:04.000 --> 00:00:04.400",
        "01:02:03.500 --> 01:02:04.250",
    ]
    assert "surprise 92% · macro · face 1" in cues


def test_a_confidence_that_is_not_known_is_left_out_of_a_subtitle() -> None:
    (cues,) = FORMATS["vtt"].export([Entry.stored({**stored(1), "confidence": None})], None)
    assert "\nsurprise · micro" in cues.decode()
