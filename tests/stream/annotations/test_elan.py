from __future__ import annotations

from pathlib import Path

import pytest
from pympi import Eaf

from engine.errors import InputError
from stream.annotations.elan import read_elan
from stream.annotations.timed_label import TimedLabel, Wanted
from tests.exports import exported


def by_hand(path: Path, *tiers: tuple[str, list[tuple[int, int, str]]], time_origin: int | None = None) -> Path:
    """A file as a coder makes one in ELAN."""
    eaf = Eaf()
    if time_origin is not None:
        eaf.add_linked_file("file:///C:/videos/other.mp4", mimetype="video/mp4")
        eaf.add_linked_file("file:///C:/videos/my%20video.mp4", mimetype="video/mp4", time_origin=time_origin)
    for name, spans in tiers:
        eaf.add_tier(name)
        for start, end, text in spans:
            eaf.add_annotation(name, start, end, text)
    eaf.to_file(path)
    return path


def test_an_export_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "events.eaf"
    path.write_bytes(exported("eaf"))
    assert sorted(read_elan(path, Wanted()), key=lambda one: one.start) == [
        TimedLabel(1.0, 1.4, "surprise", 1.2, 0),
        TimedLabel(6.834, 7.334, "positive", 7.067, 0),
        TimedLabel(7.0, 8.0, "negative", 7.5, 0),
        TimedLabel(7.067, 7.367, "uncertain", 7.2, 1),
    ]


def test_a_coders_own_tiers_are_read(tmp_path: Path) -> None:
    tiers = ("AUs", [(1000, 1500, " AU12 ")]), ("gestures", [(0, 9000, "hand")]), ("apex", [(1200, 1240, "x")])
    path = by_hand(tmp_path / "anna.eaf", *tiers)
    assert read_elan(path, Wanted(tiers=("AUs",))) == [TimedLabel(1.0, 1.5, "AU12", 1.2)]
    with pytest.raises(InputError, match="several tiers; choose"):
        read_elan(path, Wanted())
    assert read_elan(by_hand(tmp_path / "empty.eaf"), Wanted()) == []


def test_the_offset_of_a_shifted_medium_is_added(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "anna.eaf", ("AUs", [(1000, 1500, "AU12")]), time_origin=2500)
    assert read_elan(path, Wanted(video="my video.mp4")) == [TimedLabel(3.5, 4.0, "AU12")]
    assert read_elan(path, Wanted(video="other.mp4")) == [TimedLabel(1.0, 1.5, "AU12")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "no XML",
        lambda text: "<html></html>",
        lambda text: text.replace("TIME_SLOT_REF1", "OTHER"),
        lambda text: text.replace('TIME_ORIGIN="0"', 'TIME_ORIGIN="x"'),
        lambda text: text.replace("TIME_VALUE", "OTHER"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, damage: object) -> None:
    path = by_hand(tmp_path / "anna.eaf", ("AUs", [(1000, 1500, "AU12")]), time_origin=0)
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"damaged|no times"):
        read_elan(path, Wanted(video="my video.mp4"))
