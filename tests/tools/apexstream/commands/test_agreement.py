from __future__ import annotations

import json
from pathlib import Path

import pytest

from apexstream import display
from apexstream.cli import main
from stream.review.database import ReviewDatabase
from tests.review import code_of, events_at, write_results

EVENTS = events_at(range(0, 1500, 50))


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """Thirty events, a third of which one of two coders rejects."""
    write_results(tmp_path, EVENTS)
    with ReviewDatabase.open(tmp_path) as database:
        for coder in ("anna", "ben"):
            database.enter(coder, "none")
            for number, event in enumerate(EVENTS):
                rejected = coder == "ben" and number % 3 == 0
                database.put(f"{coder} {number}", code_of(event, coder, decision="rejected" if rejected else "accepted"))
    return tmp_path


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["agreement", *map(str, args)])
    return ended.value.code


def test_figures_and_disagreements(reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(reviewed, "--out", tmp_path / "figures.json") == 0
    shown = capsys.readouterr().out
    assert "30 events and additions, judged by anna, ben" in shown
    assert "10 disagreements:" in shown
    assert "anna negative, ben none" in shown
    assert "Krippendorff" not in shown
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [pair["coders"] for pair in figures["pairs"]] == [["anna", "ben"], ["anna", "machine"], ["ben", "machine"]]
    assert figures["pairs"][0]["kappa"] == 0.5714, "(20/30 - 200/900) / (1 - 200/900)"
    assert figures["pairs"][1]["kappa"] == 1
    assert len(figures["disagreements"]) == 10
    assert figures["undecided"] == {}


def test_no_number_is_cut_at_80_columns(
    reviewed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "PIPED_WIDTH", 80)
    name = "a coder with quite a long name"
    with ReviewDatabase.open(reviewed) as database:
        database.enter(name, "none")
        database.put("long", code_of(EVENTS[0], name))
    assert run(reviewed) == 0
    shown = capsys.readouterr().out
    tables, _, listed = shown.partition("disagreements:")
    assert "…" not in tables and max(map(len, tables.splitlines()[1:])) <= 80
    assert all(
        heading in tables
        for heading in ("Cohen's kappa over all classes", "median absolute differences", "both saw", "offset s")
    )
    assert ("0.571" in tables) and "anna negative, ben none" in listed


def test_what_is_undecided_is_counted_and_no_disagreement(
    reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ReviewDatabase.open(reviewed) as database:
        for number in (0, 1):
            database.put(f"again {number}", code_of(EVENTS[number], "anna", decision="open"))
    assert run(reviewed, "--out", tmp_path / "figures.json") == 0
    shown = capsys.readouterr().out
    assert "9 disagreements:" in shown and "not decided" not in shown
    assert "2 events undecided by anna, left out of anna's figures" in shown
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (len(figures["disagreements"]), figures["undecided"]) == (9, {"anna": 2})


def test_the_differences_of_one_coder_from_the_machine_are_listed(reviewed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(reviewed, "--coder", "ben") == 0
    shown = capsys.readouterr().out
    assert "10 differences from the machine:" in shown and "ben none, machine negative" in shown


def test_three_coders_have_an_alpha(reviewed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReviewDatabase.open(reviewed) as database:
        database.enter("cleo", "none")
        database.put("cleo", code_of(EVENTS[0], "cleo"))
    assert run(reviewed) == 0
    assert "Krippendorff's alpha of 3 coders" in capsys.readouterr().out
    assert run(reviewed, "--coder", "anna", "--coder", "cleo") == 0
    shown = capsys.readouterr().out
    assert "0 disagreements" in shown and "29 events undecided by cleo" in shown


def test_who_is_unknown_is_named(reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(reviewed, "--coder", "dora") == 1
    assert "has no review by 'dora'; reviewers: anna, ben" in capsys.readouterr().err
    assert run(write_results(tmp_path / "new", EVENTS)) == 1
    assert "has not been reviewed" in capsys.readouterr().err


@pytest.mark.parametrize("coder", ["anna [lab]", "a[/b]"])
def test_a_name_with_brackets_is_shown_as_it_is(coder: str, reviewed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReviewDatabase.open(reviewed) as database:
        database.enter(coder, "none")
        database.put("bracketed", code_of(EVENTS[0], coder))
    assert run(reviewed) == 0
    table = capsys.readouterr().out.partition("Cohen")[2].partition("disagreements")[0]
    assert coder.rsplit(maxsplit=1)[-1] in table, "it may be wrapped"
