from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from apexstream.cli import main
from stream.events.formats import FORMATS, file_name
from stream.review.database import ReviewDatabase
from tests.review import code_of, events_at, write_results

EVENTS = events_at([10, 40], start=100.0)


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["export-events", *map(str, args)])
    return ended.value.code


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two events, the second rejected and the first relabelled by anna."""
    folder = write_results(tmp_path / "interview", EVENTS, origin=100.0)
    with ReviewDatabase.open(folder) as database:
        database.enter("anna b", "none")
        for code in (
            code_of(EVENTS[0], coder="anna b", decision="relabelled", label="negative", action_units=("AU4",)),
            code_of(EVENTS[1], coder="anna b", decision="rejected"),
        ):
            database.put(code.id, code)
    return folder


def labels(path: Path) -> list[str | None]:
    root = ElementTree.parse(path).getroot()
    tiers = [tier for tier in root.iter("TIER") if tier.attrib["TIER_ID"].endswith("label")]
    return [one.text for tier in tiers for one in tier.iter("ANNOTATION_VALUE")]


def test_every_format_lies_beside_the_results(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [arg for name in FORMATS for arg in ("--format", name)]
    assert run(results, *wanted, "--replace") == 0
    assert capsys.readouterr().out.splitlines() == [f"{results / file_name(name)}: 2 events" for name in FORMATS]
    assert labels(results / "events.eaf") == [event.label for event in EVENTS]


def test_reviewed_events_are_those_of_the_coder(results: Path) -> None:
    assert run(results, "--format", "eaf", "--format", "csv", "--reviewed", "--coder", "anna b") == 0
    assert labels(results / "reviewed-anna_b.eaf") == ["negative"]
    header, row = (results / "reviewed-anna_b.csv").read_text().splitlines()
    assert header.endswith("coder,decision,action_units,note") and row.endswith("anna b,relabelled,AU4,")


def test_undecided_events_are_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReviewDatabase.open(results) as database:
        database.enter("ben", "none")
        database.put("1", code_of(EVENTS[0], coder="ben"))
    assert run(results, "--format", "vtt", "--reviewed", "--coder", "ben") == 0
    assert "1 event is left out: ben has not decided about it" in capsys.readouterr().err


def test_what_is_there_is_replaced_only_when_asked(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = results / "events.eaf"
    work.write_text("hours of work")
    assert run(results, "--format", "EAF") == 1
    assert "events.eaf is there already; --replace replaces it" in capsys.readouterr().err
    assert work.read_text() == "hours of work"
    assert run(results, "--format", "eaf", "--out", results / "second.eaf") == 0
    assert run(results, "--format", "eaf", "--replace") == 0
    assert work.read_bytes() == (results / "second.eaf").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--format", "xlsx"], 2, "none of jsonl, csv"),
        (["--format", "ELAN"], 2, "elan opens eaf"),
        ([], 2, "--format"),
        (["--format", "csv", "--reviewed"], 2, "--reviewed and --coder NAME belong together"),
        (["--format", "csv", "--coder", "anna b"], 2, "--reviewed and --coder NAME belong together"),
        (["--format", "csv", "--format", "vtt", "--out", "x"], 2, "--out names one file"),
        (["--format", "csv", "--reviewed", "--coder", "carl"], 1, "has no review by 'carl'; reviewers: anna b"),
    ],
)
def test_wrong_usage_is_one_sentence(
    results: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, sentence: str
) -> None:
    assert run(results, *args) == code
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_no_results_and_damage_are_one_sentence(tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--format", "eaf") == 1
    assert "has no summary.json: the folder of one video's results is expected" in capsys.readouterr().err
    (results / "activity.jsonl").write_text(json.dumps({"face": 0}) + "\n")
    assert run(results, "--format", "eaf") == 1
    assert "activity.jsonl is damaged: line 1 is no activity" in capsys.readouterr().err
    assert not (results / "events.eaf").exists()
