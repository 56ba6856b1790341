from __future__ import annotations

from stream.recorded.colours import COLOURS, colour_of


def test_every_class_has_a_colour_of_its_own() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert colour_of("disgust") == colour_of("disgust")
    assert colour_of("disgust") not in COLOURS.values()
