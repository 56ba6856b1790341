from __future__ import annotations

from pathlib import Path

import parselmouth
import pytest
from parselmouth.praat import call

from engine.errors import InputError
from stream.annotations.praat import read_praat
from stream.annotations.timed_label import TimedLabel, Wanted
from tests.exports import exported


def by_praat(path: Path, save: str) -> Path:
    """A TextGrid that Praat itself made and saved."""
    grid = call("Create TextGrid", 0.0, 5.0, "AUs gestures apex", "apex")
    call(grid, "Insert boundary", 1, 1.0)
    call(grid, "Insert boundary", 1, 1.5)
    call(grid, "Set interval text", 1, 2, "AU12 é")
    call(grid, "Insert point", 3, 1.25, "x")
    call(grid, save, str(path))
    return path


def test_an_export_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "events.TextGrid"
    path.write_bytes(exported("textgrid"))
    found = sorted(read_praat(path, Wanted()), key=lambda one: one.start)
    assert [(one.label, one.face, round(one.start, 3), round(one.end, 3), round(one.apex or 0, 3)) for one in found] == [
        ("surprise", 0, 1.0, 1.4, 1.2),
        ("positive", 0, 6.833, 7.333, 7.067),
        ("negative", 0, 7.0, 8.0, 7.5),
        ("uncertain", 1, 7.067, 7.367, 7.2),
    ]


@pytest.mark.parametrize("save", ["Save as text file", "Save as short text file"])
def test_what_praat_saves_is_read(tmp_path: Path, save: str) -> None:
    path = by_praat(tmp_path / "anna.TextGrid", save)
    expected = [TimedLabel(1.0, 1.5, "AU12 é", 1.25)]
    assert read_praat(path, Wanted()) == expected, "the other interval tier is empty"
    text = parselmouth.read(str(path))
    call(text, "Set interval text", 2, 1, "hand")
    call(text, save, str(path))
    assert read_praat(path, Wanted(tiers=("AUs",))) == expected
    with pytest.raises(InputError, match="several interval tiers; choose those with expressions by --tier: AUs, gestures"):
        read_praat(path, Wanted())


def test_other_encodings_are_read(tmp_path: Path) -> None:
    path = by_praat(tmp_path / "anna.TextGrid", "Save as text file")
    text = path.read_text(encoding="utf-8") if path.read_bytes()[:1] == b"F" else path.read_text(encoding="utf-16")
    for encoding in ("utf-8", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert [one.label for one in read_praat(path, Wanted())] == ["AU12 é"]


@pytest.mark.parametrize("content", [b"", b"no TextGrid", b"\xff\xfe\x00", b"\x80\x81" * 40])
def test_damage_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "anna.TextGrid"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or no TextGrid"):
        read_praat(path, Wanted())
    whole = exported("textgrid")
    for size in range(200, len(whole) - 200, 331):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged or no TextGrid"):
            read_praat(path, Wanted())
