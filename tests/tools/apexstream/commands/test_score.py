from __future__ import annotations

import json
from pathlib import Path

import pytest
from pympi import Eaf

from apexstream.cli import main
from stream.review.codes import Decision
from stream.review.database import Blind, ReviewDatabase
from tests.review import code_of, events_at, write_results

EVENTS = events_at([30, 60, 90, 120], start=100.0)
"""negative, positive, surprise and negative again, at 1, 2, 3 and 4 seconds, 0.4 s long."""


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, args)])
    return ended.value.code


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "interview", EVENTS, origin=100.0, end=110.0, measured_fps=30.0)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """What a coder marked in ELAN: the first two, another class for the third, one that was missed; and gestures."""
    eaf = Eaf()
    for name in ("expressions", "gestures"):
        eaf.add_tier(name)
    for start, end, text in ((1033, 1400, "AU4"), (2000, 2400, "happiness"), (3000, 3400, "smirk"), (7000, 7300, "fear")):
        eaf.add_annotation("expressions", start, end, text)
    eaf.add_annotation("gestures", 0, 9000, "hand")
    path = tmp_path / "anna.eaf"
    eaf.to_file(path)
    return path


def test_found_against_coded(results: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "score.json"
    assert run(results, truth, "--tier", "expressions", "--map", "smirk=negative", "--out", out) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"{results} against {truth}: 4 found, 4 coded"
    assert "spotting: precision 0.750, recall 0.750, F1 0.750" in lines
    assert "3 matched, 1 found but not coded, 1 coded but missed" in lines
    assert "onset 3 0 ms 0.0 frames -11 ms -0.3 frames" in lines
    assert "apex 0" in lines
    assert "coded as \\ found as negative positive surprise" in lines
    assert "negative 1 0 1" in lines and "positive 0 1 0" in lines
    figures = json.loads(out.read_text())
    assert (figures["precision"], figures["matched"], figures["not_coded"], figures["missed"]) == (0.75, 3, 1, 1)
    assert figures["kappa"] == 0.5
    assert f"Cohen's kappa: 0.500 of the classes of matched pairs, {figures['frame_kappa']:.3f} frame by frame" in lines


def test_labels_without_a_class_are_named(results: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(results, truth, "--tier", "expressions") == 0
    shown = capsys.readouterr().out
    assert "compared in time only, as they have no class: smirk (1); --map LABEL=CLASS gives them one" in shown
    assert "3 matched" in shown


def test_a_coder_against_another_and_against_the_machine(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReviewDatabase.open(results) as database:
        for coder, kept in (("anna", EVENTS[:3]), ("ben", EVENTS[1:3])):
            database.enter(coder, "none")
            for event in kept:
                database.put(f"{coder}-{event.id}", code_of(event, coder))
    assert run(results, results, "--truth-coder", "anna") == 0
    shown = capsys.readouterr()
    assert f"{results} against {results} as anna left it: 3 found, 3 coded" in shown.out
    assert f"{results}: 1 event is left out: anna has not decided about it" in shown.err
    assert run(results, results / "review.sqlite", "--truth-coder", "anna", "--reviewed", "--coder", "ben") == 0
    shown = capsys.readouterr().out
    assert "as ben left it" in shown and "2 found, 2 coded" in shown and "recall 1.000" in shown
    assert run(results, results) == 1
    assert "was reviewed by anna, ben; choose one by --truth-coder" in capsys.readouterr().err


def test_one_kind_alone(results: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(results, truth, "--tier", "expressions", "--kind", "macro") == 0
    assert "0 found, 0 coded" in capsys.readouterr().out


def test_codes_after_the_end_are_named_and_left_out(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "milliseconds.csv"
    table.write_text("start,end,label\n1,1.4,anger\n2000,2400,happiness\n1e12,1e12,fear\n")
    assert run(results, table) == 0
    shown = capsys.readouterr()
    assert "2 codes lie after the end of the video at 10.0 s, left out: is this the same video" in shown.err
    assert "4 found, 1 coded" in shown.out


WRONG = [
    ((), 1, "it has several tiers; choose those with expressions by --tier: expressions, gestures"),
    (("--tier", "AUs"), 1, "it has no tier 'AUs'"),
    (("--tier", "expressions", "--map", "x"), 1, "'x' maps no label to a class"),
    (("--reviewed",), 2, "--reviewed and --coder NAME belong together"),
    (("--truth-coder", "anna"), 2, "--truth-coder is for a reviewed folder"),
    (("--kind", "long"), 2, "'long' is none of micro, macro"),
]


@pytest.mark.parametrize(("args", "code", "sentence"), WRONG)
def test_wrong_usage_is_one_sentence(
    results: Path, truth: Path, capsys: pytest.CaptureFixture[str], *, args: tuple[str, ...], code: int, sentence: str
) -> None:
    assert run(results, truth, *args) == code
    shown = " ".join(capsys.readouterr().err.split())
    assert sentence in shown and "Traceback" not in shown


def test_what_cannot_be_compared_is_one_sentence(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(results, tmp_path / "none.eaf") == 1
    assert "none.eaf cannot be read: no such file or directory" in capsys.readouterr().err
    assert run(results, tmp_path) == 1
    assert "has not been reviewed" in capsys.readouterr().err
    (tmp_path / "cut.eaf").write_text("<ANNOTATION_DOCUMENT")
    assert run(results, tmp_path / "cut.eaf") == 1
    assert "cut.eaf: it is damaged or no ELAN file; open it in ELAN and save it again" in capsys.readouterr().err
    unknown = write_results(tmp_path / "old", EVENTS)
    assert run(unknown, tmp_path / "cut.eaf") == 1
    assert "does not say how many frames a second the video has" in capsys.readouterr().err


def review(results: Path, coder: str, decisions: dict[int, Decision], blind: Blind = "none") -> None:
    """Decisions about events by their numbers."""
    with ReviewDatabase.open(results) as database:
        database.enter(coder, blind)
        for number, decision in decisions.items():
            database.put(f"{coder}-{number}", code_of(EVENTS[number], coder, decision=decision))


def test_events_without_a_decision_are_left_out(
    results: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review(results, "anna", {0: "accepted", 1: "rejected"})
    out = tmp_path / "score.json"
    assert run(results, results, "--out", out) == 0
    shown = capsys.readouterr()
    assert f"{results} against {results} as anna left it: 2 found, 1 coded" in shown.out and "precision 0.500" in shown.out
    assert shown.err == f"{results}: 2 events are left out: anna has not decided about them\n"
    assert json.loads(out.read_text())["undecided"] == {"anna": 2}
    assert run(results, truth, "--tier", "expressions", "--reviewed", "--coder", "anna", "--out", out) == 0
    shown = capsys.readouterr()
    assert "1 found, 3 coded" in shown.out, "the smirk belongs to an event that anna has not decided about"
    assert json.loads(out.read_text())["undecided"] == {"anna": 2}


def test_a_coder_who_was_shown_no_events_has_left_none_undecided(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review(results, "anna", {}, "machine")
    assert run(results, results) == 0
    shown = capsys.readouterr()
    assert "4 found, 0 coded" in shown.out and shown.err == ""


def test_a_file_without_codes_and_arguments_in_the_wrong_order(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "anna.csv"
    table.write_text("start,end,label\n")
    assert run(results, table) == 1
    assert capsys.readouterr().err == f"apexstream: error: {table} holds no codes to compare with\n"
    assert run(table, results) == 1
    assert "anna.csv is a file; the folder of results goes first: apexstream score RESULTS" in capsys.readouterr().err
